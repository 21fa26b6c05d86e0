// The library's doors: what runs is chosen by what the processor has.
#include <cstring>

#include "forked.h"
#include "layer.h"
#include "pool.h"

extern const Kernels portable;
#if defined(__x86_64__)
// Weak: null where the compiler did not know the instructions.
extern const Kernels __attribute__((weak)) avx2, avx512, avx512vnni, avx512bf16;
#endif

static const Kernels *kernels_named(const char *name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(name, "avx512bf16")) return has_vnni && __builtin_cpu_supports("avx512bf16") ? &avx512bf16 : nullptr;
    if (!strcmp(name, "avx512vnni")) return has_vnni ? &avx512vnni : nullptr;
    if (!strcmp(name, "avx512")) return has_avx512 ? &avx512 : nullptr;
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2 : nullptr;
#endif
    return strcmp(name, "portable") ? nullptr : &portable;
}

extern "C" {

// 1 when this processor can run the kernels of this name.
EXPORT int recurrent_supports(const char *isa) { return kernels_named(isa) != nullptr; }

EXPORT int64_t recurrent_layer_size() { return sizeof(Layer); }

// A cell's number in Layer::cell, -1 where there is none of this name.
EXPORT int64_t recurrent_cell(const char *isa, const char *name) { return kernels_named(isa)->cell(name); }

EXPORT int64_t recurrent_reserve_width(const char *isa, const Layer *layer) {
    return kernels_named(isa)->reserve_width(*layer);
}
EXPORT int64_t recurrent_packed_bytes(const char *isa, const Layer *layer) {
    return kernels_named(isa)->packed_bytes(*layer);
}
EXPORT void recurrent_pack(const char *isa, const Layer *layer, int64_t direction, void *packed) {
    on_living_threads(layer->threads, [=] { return kernels_named(isa)->pack(*layer, direction, packed), 0; });
}
// 0, 1 when memory ran out, or 2 when a length is not within 0 and the frames.
EXPORT int recurrent_forward(const char *isa, const Layer *layer) {
    for (int64_t b = 0; b < layer->batch; b++)
        if (layer->lengths[b] < 0 || layer->lengths[b] > layer->frames) return 2;
    return on_living_threads(layer->threads, [=] { return kernels_named(isa)->forward(*layer); });
}
EXPORT int recurrent_backward(const char *isa, const Layer *layer) {
    return on_living_threads(layer->threads, [=] { return kernels_named(isa)->backward(*layer); });
}
EXPORT double recurrent_peak(const char *isa, int threads) { return kernels_named(isa)->peak(threads); }
}
