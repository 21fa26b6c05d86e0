// Threads beside those of OpenMP.
#pragma once
#include <cstdint>
#include <functional>

// Run work, which returns an int and has parallel regions of up to `threads` threads. A forked process has one thread,
// and those that OpenMP kept for it are gone: a region would wait for them forever. A thread begun after the fork gets
// a team of its own, so such a thread then does the work.
int on_living_threads(int64_t threads, const std::function<int()> &work);

// Run work(0) and work(1), side by side if a second core is free now: else the caller does both. Leaving an OpenMP
// region means to wait, spinning, until each of its threads has been given a core, which on a busy machine takes
// milliseconds, more than a short utterance's whole layer.
void run_both(const std::function<void(int)> &work);
