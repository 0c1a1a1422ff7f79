// What all kernels share. The same text is compiled by NVRTC for a GPU and, in tests, by a C++ compiler for the processor.
#ifndef HOST_SHIM
#define SYNC() __syncthreads()
#define SHFL_XOR(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define SHFL(value, lane) __shfl_sync(0xffffffffu, value, lane)
#define SHARED(type, name, count) __shared__ type name[count]
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

// The upper half of a float, rounded to the nearest, ties to even; NaN stays NaN.
struct bf16 {
    unsigned short bits;
    bf16() = default;
    __device__ bf16(float value) {
#ifndef HOST_SHIM
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
        u32 u = __float_as_uint(value);
        bits = value != value ? 0x7fc0 : (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
#endif
    }
    __device__ operator float() const { return __uint_as_float(u32(bits) << 16); }
};

// Sixteen bytes of T, the piece that a thread loads and stores at once. Rows begin at whole pieces.
template <class T> struct alignas(16) Piece {
    static constexpr int LEN = 16 / sizeof(T);
    T at[LEN];
};

template <class T> __device__ inline Piece<T> load(const T* from) { return *reinterpret_cast<const Piece<T>*>(from); }
template <class T> __device__ inline void store(T* to, const Piece<T>& piece) { *reinterpret_cast<Piece<T>*>(to) = piece; }

// The sum over the 32 threads of a warp, in all of them; always added up in the same order.
__device__ inline float warp_sum(float value) {
    for (int mask = 16; mask; mask >>= 1) value += SHFL_XOR(value, mask);
    return value;
}
__device__ inline float warp_max(float value) {
    for (int mask = 16; mask; mask >>= 1) value = fmaxf(value, SHFL_XOR(value, mask));
    return value;
}

// Before a kernel whose blocks may have more threads than there are registers for, it says how many: __launch_bounds__(512).
#define KERNEL_BOUNDS

// A kernel in both storages: KERNEL(name, (parameters with T), (arguments)) makes name_f32 and name_bf16 of a function template `name`.
#define KERNEL(name, parameters, arguments) \
    KERNEL_FORM(name, f32, float, parameters, arguments) KERNEL_FORM(name, bf16, bf16, parameters, arguments)
#define KERNEL_FORM(name, suffix, type, parameters, arguments) \
    namespace suffix##_##name { typedef type T; extern "C" __global__ void KERNEL_BOUNDS name##_##suffix parameters { name<T> arguments; } }
