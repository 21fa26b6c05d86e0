// Memory that outlives a call. Touching fresh memory costs more than a tenth of a training step (the system clears every
// page), so all but small blocks are kept and handed out again, up to an eighth of the machine's memory.
#pragma once
#include <cstdint>

#define EXPORT __attribute__((visibility("default")))

extern "C" {
// At least `bytes` and one cache line, aligned to it; null when memory ran out. Contents are arbitrary.
EXPORT void *recurrent_take(int64_t bytes);
EXPORT void recurrent_give(void *memory);
}

// Ask for huge pages: fewer of them to set up.
void advise_huge(void *memory, int64_t bytes);
