#include "forked.h"

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace {

// Does what the surviving thread asks for, one thing at a time.
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

pthread_t survivor;
Deputy *deputy = nullptr;  // of this process; one that a parent had lost its thread

__attribute__((constructor)) void watch_forks() {
    pthread_atfork(nullptr, nullptr, [] {
        survivor = pthread_self();
        deputy = new Deputy;
    });
}

}  // namespace

int on_living_threads(int64_t threads, const std::function<int()> &work) {
    if (threads > 1 && deputy && pthread_equal(pthread_self(), survivor)) return deputy->run(work);
    return work();
}
