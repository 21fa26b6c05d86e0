// Who does what: rows in the order of their lengths, threads in teams of one direction, memory for one call.
#pragma once
#include <sched.h>

#include "layer.h"
#include "pool.h"
#include "vector.h"

namespace {

// Memory of one call or thread, back to the pool at its end.
class Buffer {
   public:
    Buffer() = default;
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() { recurrent_give(memory); }

    template <class T>
    T *take(int64_t count) {
        memory = recurrent_take(count * sizeof(T));
        return static_cast<T *>(memory);
    }

   private:
    void *memory = nullptr;
};

// Threads that share one direction; each owns a range of panels. Waits by spinning, as steps take microseconds.
class Team {
   public:
    int rank = 0, size = 1;
    struct alignas(64) Gate {
        int waiting = 0, generation = 0, failed = 0;
    };
    Gate *gate = nullptr;

    void wait() const {
        if (size == 1) return;
        int generation = __atomic_load_n(&gate->generation, __ATOMIC_ACQUIRE);
        if (__atomic_add_fetch(&gate->waiting, 1, __ATOMIC_ACQ_REL) == size) {
            __atomic_store_n(&gate->waiting, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&gate->generation, generation + 1, __ATOMIC_RELEASE);
            return;
        }
        for (int64_t spins = 0; __atomic_load_n(&gate->generation, __ATOMIC_ACQUIRE) == generation; spins++)
            if (spins > 2000) sched_yield();  // more threads than free cores
    }

    // Whether every member is ready: all go on or none, for none may wait for one that has left.
    bool all(bool ready) const {
        if (!ready) __atomic_store_n(&gate->failed, 1, __ATOMIC_RELAXED);
        wait();
        return !__atomic_load_n(&gate->failed, __ATOMIC_RELAXED);
    }

    // This member's share of `count` things, whole ones.
    int64_t begin(int64_t count) const { return count * rank / size; }
    int64_t end(int64_t count) const { return count * (rank + 1) / size; }
};

// Rows are utterances sorted by falling length, so that the rows still inside at a frame are the first ones.
// Valid frames are stored utterance after utterance in the caller's order: frame t of utterance b is start[b] + t.
struct Plan {
    int64_t batch, frames, valid;
    int64_t *utterance;  // (B) of each row
    int64_t *length;     // (B) of each row
    int64_t *start;      // (B) of each utterance
    int64_t *active;     // (T + 1) rows that have a frame t
    Buffer memory;

    bool make(const Layer &layer) {
        batch = layer.batch;
        frames = layer.frames;
        utterance = memory.take<int64_t>(3 * batch + 2 * (frames + 1));
        if (!utterance) return false;
        length = utterance + batch;
        start = length + batch;
        active = start + batch;
        int64_t *place = active + frames + 1;  // counting sort: where the next utterance of a length goes
        for (int64_t t = 0; t <= frames; t++) active[t] = 0;
        valid = 0;
        for (int64_t b = 0; b < batch; b++) {
            start[b] = valid;
            valid += layer.lengths[b];
            active[layer.lengths[b]]++;  // utterances of this very length, for now
        }
        int64_t longer = 0;
        for (int64_t t = frames; t >= 0; t--) {
            int64_t same = active[t];
            place[t] = longer;
            active[t] = longer;  // rows longer than t have a frame t
            longer += same;
        }
        for (int64_t b = 0; b < batch; b++) {
            int64_t row = place[layer.lengths[b]]++;
            utterance[row] = b;
            length[row] = layer.lengths[b];
        }
        return true;
    }
};

// PANEL units at one row and frame.
struct Site {
    int64_t row, utterance, frame, unit;
    bool first, last;  // on this utterance's walk
    int64_t valid;     // index of the frame among the valid ones
    int64_t noise;     // index (utterance, step of its walk) of the frame's noise
    float *saved;             // the frame's slots of the reserve
    float *gates;             // the frame's input share of the gates, or its gradients
};

// One direction's walk through time.
struct Walk {
    const Plan &plan;
    bool reverse;

    int64_t frame(int64_t step) const { return reverse ? plan.frames - 1 - step : step; }
    int64_t ahead() const { return reverse ? -1 : 1; }  // from a frame to the one after it on the walk
    bool first(int64_t row, int64_t t) const { return t == (reverse ? plan.length[row] - 1 : 0); }
    bool last(int64_t row, int64_t t) const { return t == (reverse ? 0 : plan.length[row] - 1); }
    Site site(int64_t row, int64_t t) const {
        int64_t b = plan.utterance[row];
        int64_t step = reverse ? plan.length[row] - 1 - t : t;
        return {row, b, t, 0, first(row, t), last(row, t), plan.start[b] + t, b * plan.frames + step, nullptr, nullptr};
    }
    // Rows at frame t which have a frame after it on the walk: the first ones.
    int64_t continuing(int64_t t) const {
        return reverse ? (t > 0 ? plan.active[t] : 0) : plan.active[t + 1];
    }
    // The first of the rows at frame t whose walk starts there.
    int64_t starting(int64_t t) const { return reverse ? plan.active[t + 1] : t == 0 ? 0 : plan.active[t]; }
};

}  // namespace
