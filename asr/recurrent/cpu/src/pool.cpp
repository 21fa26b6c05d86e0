#include "pool.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

namespace {

constexpr int64_t LINE = 64, PAGE = 1 << 12, HUGE_PAGE = 1 << 21;

struct Block {  // stands in the cache line before the memory that it describes
    Block *next;
    int64_t size;
};

#ifdef __SANITIZE_ADDRESS__
constexpr int64_t KEPT_FROM = INT64_MAX;  // so that the sanitizer sees each block's own bounds
#else
constexpr int64_t KEPT_FROM = 16 * PAGE;
#endif

std::mutex guard;
Block *kept = nullptr;
int64_t kept_bytes = 0;

// A process forked while another thread is in here would wait for it forever.
__attribute__((constructor)) void survive_forks() {
    pthread_atfork([] { guard.lock(); }, [] { guard.unlock(); }, [] { guard.unlock(); });
}

}  // namespace

void advise_huge(void *memory, int64_t bytes) {
    uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
}

void *recurrent_take(int64_t bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE + LINE;
    if (bytes >= KEPT_FROM) {
        // Sizes differ from batch to batch: round them up (pages behind the need are never touched), so that they fit.
        int64_t step = bytes < HUGE_PAGE ? PAGE : HUGE_PAGE;
        while (step * 8 < bytes) step *= 2;
        bytes = (bytes + step - 1) / step * step;
        std::lock_guard<std::mutex> lock(guard);
        for (Block **at = &kept; *at; at = &(*at)->next)
            if (Block *block = *at; block->size >= bytes && block->size <= 2 * bytes) {
                *at = block->next;
                kept_bytes -= block->size;
                return reinterpret_cast<char *>(block) + LINE;
            }
    }
    void *memory;
    if (posix_memalign(&memory, bytes >= HUGE_PAGE ? HUGE_PAGE : LINE, bytes + LINE)) return nullptr;
    advise_huge(memory, bytes);
    static_cast<Block *>(memory)->size = bytes;
    return static_cast<char *>(memory) + LINE;
}

void recurrent_give(void *memory) {
    if (!memory) return;
    Block *block = reinterpret_cast<Block *>(static_cast<char *>(memory) - LINE);
    if (block->size >= KEPT_FROM) {
        static const int64_t most = int64_t(sysconf(_SC_PHYS_PAGES)) / 8 * sysconf(_SC_PAGESIZE);
        std::lock_guard<std::mutex> lock(guard);
        if (kept_bytes + block->size <= most) {
            block->next = kept;
            kept = block;
            kept_bytes += block->size;
            return;
        }
    }
    free(block);
}
