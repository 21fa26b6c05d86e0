// One instruction set's kernels; compiled once for each, with its WIDTH and ISA name.
#include <omp.h>

#include <cstring>

#include "backward.h"
#include "forward.h"
#include "threads.h"

namespace {

#define NUMBER(name, Cell) name,
enum CellNumber : int64_t { EACH_CELL(NUMBER) };
#undef NUMBER

int64_t cell_number(const char *wanted) {
#define FIND(name, Cell) \
    if (!strcmp(wanted, #name)) return name;
    EACH_CELL(FIND)
#undef FIND
    return -1;
}

// Calls work(cell type) for the layer's cell.
template <class Work>
auto with_cell(const Layer &layer, Work work) {
    switch (layer.cell) {
#define CASE(name, Cell) \
    case name:           \
        return work(Cell());
        EACH_CELL(CASE)
#undef CASE
    }
    __builtin_unreachable();  // numbers come from cell_number
}

// Run work(direction, team) for every direction, each by a team of threads, or one after the other by one thread.
template <class Work>
void each_direction(const Layer &layer, Team::Gate *gates, Work work) {
    int threads = omp_get_num_threads(), me = omp_get_thread_num(), directions = layer.directions;
    int size = threads < directions ? 1 : threads / directions;
    int concurrent = threads < directions ? 1 : directions;
    if (me >= size * concurrent) return;
    for (int d = me / size; d < directions; d += concurrent) {
        Team team;
        team.rank = me % size;
        team.size = size;
        team.gate = &gates[d];
        work(d, team);
    }
}

// Multiplications of one direction and gate.
int64_t products(const Layer &layer) {
    return layer.batch * layer.frames * layer.hidden * (layer.input + layer.output);
}

// More threads than these have too little to do between two waits.
int useful_threads(const Layer &layer) {
    if (products(layer) < 300000) return 1;  // some ten microseconds of work: to wake a thread takes as long
    int64_t panels = round_up(layer.hidden, PANEL) / PANEL;
    int64_t work = layer.batch * layer.hidden * layer.output / 65536;  // a step of one direction
    int64_t most = panels < work ? panels : work;
    most = (most < 1 ? 1 : most) * layer.directions;
    return layer.threads < most ? layer.threads : most;
}

// GFLOP/s of the micro-kernel on data in the nearest cache, on so many threads at once.
double peak(int threads) {
    constexpr int64_t K = 128, ROUNDS = 20000;
    double begin = omp_get_wtime();
#pragma omp parallel num_threads(threads)
    {
        float left[TILE * K] = {}, panel[K * PANEL] = {}, out[TILE * PANEL];
        const float *rows[TILE];
        for (int r = 0; r < TILE; r++) rows[r] = left + r * K;
        for (int64_t i = 0; i < ROUNDS; i++) tile_product(PANEL, TILE, rows, K, 1, panel, 0, out, PANEL, 0);
    }
    return 2e-9 * threads * ROUNDS * K * TILE * PANEL / (omp_get_wtime() - begin);
}

int64_t reserve_width(const Layer &layer) {
    return with_cell(layer, [&](auto cell) {
        return Slots<decltype(cell)>(layer).count * round_up(layer.hidden, PANEL);
    });
}

int64_t packed_bytes(const Layer &layer) {
    return with_cell(layer, [&](auto cell) { return Matrices(layer, decltype(cell)::gates).bytes(); });
}

void pack(const Layer &layer, int64_t direction, void *packed) {
    const Direction &own = layer.direction[direction];
    with_cell(layer, [&](auto cell) {
        Matrices matrices(layer, decltype(cell)::gates);
        matrices.place(packed);
#pragma omp parallel for num_threads(layer.threads)
        for (int64_t p = 0; p < round_up(layer.hidden, PANEL) / PANEL; p++) {
            matrices.ih.pack(own.weight_ih, p, p + 1);
            matrices.hh.pack(own.weight_hh, p, p + 1);
        }
        matrices.hr.pack(own.weight_hr, 0, round_up(layer.output, PANEL) / PANEL);
    });
}

int forward(const Layer &layer) {
    Plan plan;
    if (!plan.make(layer)) return 1;
    const int64_t outputs = layer.batch * layer.frames * layer.directions * layer.output;
    if (layer.y_bfloat16)
        advise_huge(layer.y_bfloat16, outputs * sizeof(uint16_t));
    else
        advise_huge(layer.y, outputs * sizeof(float));
    return with_cell(layer, [&](auto cell) {
        using Pass = Forward<decltype(cell)>;
        Pass passes[2] = {Pass(layer, plan, 0), Pass(layer, plan, 1)};
        Buffer shared[2], packed[2];
        Team::Gate gates[2];
        int failed = 0;
        for (int d = 0; d < layer.directions; d++)
            if (!passes[d].prepare(shared[d], packed[d])) return 1;
        auto run = [&](int d, const Team &team) {
            Pass mine = passes[d];
            if (!mine.run(team)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
        };
        const int threads = useful_threads(layer);
        // A few milliseconds of work, less than a thread may have to wait for a core.
        if (layer.batch == 1 && threads == 2 && layer.directions == 2 && products(layer) < 20000000) {
            run_both([&](int d) { run(d, Team{0, 1, &gates[d]}); });
            return failed;
        }
#pragma omp parallel num_threads(threads)
        each_direction(layer, gates, run);
        return failed;
    });
}

int backward(const Layer &layer) {
    Plan plan;
    if (!plan.make(layer)) return 1;
    if (layer.d_x) advise_huge(layer.d_x, layer.batch * layer.frames * layer.input * sizeof(float));
    return with_cell(layer, [&](auto cell) {
        using Pass = Backward<decltype(cell)>;
        Pass passes[2] = {Pass(layer, plan, 0), Pass(layer, plan, 1)};
        Buffer shared[2], gradients[2], packed_memory;
        Team::Gate gates[2];
        int failed = 0;
        const int64_t D = layer.directions;
        const int64_t packed_size =
            Pass::G * round_up(layer.hidden, PANEL) * round_up(layer.input, PANEL) * (layer.d_x != nullptr);
        float *packed = packed_memory.take<float>(D * packed_size);
        if (!packed) return 1;
        for (int d = 0; d < D; d++)
            if (!passes[d].prepare(shared[d], gradients[d])) return 1;
#pragma omp parallel num_threads(useful_threads(layer))
        each_direction(layer, gates, [&](int d, const Team &team) {
            Pass mine = passes[d];
            if (!mine.run(team)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
        });
        if (failed) return 1;
#pragma omp parallel num_threads(layer.threads)
        {
            each_direction(layer, gates, [&](int d, const Team &team) {
                if (!passes[d].weight_gradients(team)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
                if (layer.d_x) passes[d].pack_input_weights(packed + d * packed_size, team);
            });
            if (layer.d_x) {
#pragma omp barrier
                for (int64_t b = omp_get_thread_num(); b < layer.batch; b += omp_get_num_threads())
                    memset(layer.d_x + (b * layer.frames + layer.lengths[b]) * layer.input, 0,
                           (layer.frames - layer.lengths[b]) * layer.input * sizeof(float));
                const int64_t blocks = plan.valid / chunk_rows(layer) + 1;
#pragma omp for schedule(dynamic)
                for (int64_t i = 0; i < blocks; i++)
                    for (int d = 0; d < D; d++)
                        passes[d].input_gradient(packed + d * packed_size, plan.valid * i / blocks,
                                                 plan.valid * (i + 1) / blocks, d > 0);
            }
        }
        return failed;
    });
}

}  // namespace

extern const Kernels ISA;
const Kernels ISA = {cell_number, reserve_width, packed_bytes, pack, forward, backward, peak};
