#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace {

// Does what the surviving thread of a fork asks for, one thing at a time.
class Deputy {
   public:
    int run(const std::function<int()> &work) {
        std::unique_lock<std::mutex> lock(guard);
        if (!begun) std::thread([this] { serve(); }).detach();
        begun = true;
        asked = &work;
        changed.notify_all();
        changed.wait(lock, [this] { return !asked; });
        return result;
    }

   private:
    void serve() {
        std::unique_lock<std::mutex> lock(guard);
        for (;;) {
            changed.wait(lock, [this] { return asked; });
            result = (*asked)();
            asked = nullptr;
            changed.notify_all();
        }
    }

    std::mutex guard;
    std::condition_variable changed;
    const std::function<int()> *asked = nullptr;
    int result = 0;
    bool begun = false;
};

struct Errand {
    const std::function<void(int)> &work;
    std::atomic<bool> done{false};
};

// Takes errands that nobody else has taken back.
class Companion {
   public:
    // Whether the errand was left here: one at a time is.
    bool offer(Errand *errand) {
        Errand *none = nullptr;
        if (!offered.compare_exchange_strong(none, errand)) return false;
        std::lock_guard<std::mutex> lock(guard);
        if (!begun) std::thread([this] { serve(); }).detach();
        begun = true;
        changed.notify_one();
        return true;
    }
    bool take_back(Errand *errand) { return offered.compare_exchange_strong(errand, nullptr); }

   private:
    void serve() {
        for (;;) {
            {
                std::unique_lock<std::mutex> lock(guard);
                changed.wait(lock, [this] { return offered.load(); });
            }
            if (Errand *errand = offered.exchange(nullptr)) {
                errand->work(1);
                errand->done.store(true, std::memory_order_release);  // the errand is the other thread's: gone from here on
            }
        }
    }

    std::atomic<Errand *> offered{nullptr};
    std::mutex guard;
    std::condition_variable changed;
    bool begun = false;
};

// Never destroyed, for their threads still wait on them when the process ends.
Companion *companion = new Companion;
Deputy *deputy = nullptr;  // there is one in a forked process
pthread_t survivor;

// What a parent had has lost its thread.
__attribute__((constructor)) void watch_forks() {
    pthread_atfork(nullptr, nullptr, [] {
        survivor = pthread_self();
        deputy = new Deputy;
        companion = new Companion;
    });
}

}  // namespace

int on_living_threads(int64_t threads, const std::function<int()> &work) {
    if (threads > 1 && deputy && pthread_equal(pthread_self(), survivor)) return deputy->run(work);
    return work();
}

void run_both(const std::function<void(int)> &work) {
    Errand errand{work};
    Companion *helper = companion;
    const bool offered = helper->offer(&errand);
    work(0);
    if (!offered || helper->take_back(&errand)) return work(1);
    for (int spins = 0; !errand.done.load(std::memory_order_acquire); spins++)
        if (spins > 2000) sched_yield();
}
