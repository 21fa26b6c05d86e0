// A forked process has one thread, and those that OpenMP kept for it are gone: a parallel region would wait for them
// forever. A thread begun after the fork gets a team of its own, so such a thread then does the work.
#pragma once
#include <cstdint>
#include <functional>

// Run work, which returns an int, on `threads` threads.
int on_living_threads(int64_t threads, const std::function<int()> &work);
