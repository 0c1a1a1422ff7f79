// Runs CUDA C on the processor: one fiber a thread, blocks one after another. What goes wrong is told in words.
#pragma once
#define HOST_SHIM
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __noinline__ inline

struct dim3 { unsigned x = 1, y = 1, z = 1; };
#define VECTOR(type, name)                                                            \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                          \
    struct alignas(16) name##4 { type x, y, z, w; };                                  \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }           \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR(float, float)
VECTOR(int, int)
VECTOR(unsigned, uint)
VECTOR(double, double)
#undef VECTOR
static dim3 threadIdx, blockIdx, blockDim, gridDim;

template <class To, class From> static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __int_as_float(int v) { return bits_as<float>(v); }
static inline int __float_as_int(float v) { return bits_as<int>(v); }
static inline float __uint_as_float(unsigned v) { return bits_as<float>(v); }
static inline unsigned __float_as_uint(float v) { return bits_as<unsigned>(v); }
static inline double __longlong_as_double(long long v) { return bits_as<double>(v); }
static inline long long __double_as_longlong(double v) { return bits_as<long long>(v); }
static inline float rsqrtf(float v) { return 1.f / sqrtf(v); }
static inline double rsqrt(double v) { return 1. / sqrt(v); }
static inline float normcdff(float v) { return float(0.5 * erfc(-double(v) * 0.70710678118654752440)); }
#define __expf expf
#define __logf logf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
template <class V> static inline V __ldg(const V* from) { return *from; }
template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

namespace shim {
constexpr size_t STACK = 64 << 10;
enum State { Ready, AtBlock, AtWarp, Done };
static void entry();

#if defined(__x86_64__)
// Without system calls, which those of <ucontext.h> make.
extern "C" void engraft_switch(void** save, void* to);
asm(R"(
.text
.type engraft_switch, @function
engraft_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size engraft_switch, .-engraft_switch
)");
struct Context {
    void* top = nullptr;
    void begin(char* stack) {
        void** at = reinterpret_cast<void**>(uintptr_t(stack + STACK) & ~uintptr_t(15)) - 8;
        memset(at, 0, 64);
        at[6] = reinterpret_cast<void*>(&entry);
        top = at;
    }
    void go(Context& to) { engraft_switch(&top, to.top); }
};
#else
struct Context {
    ucontext_t context;
    void begin(char* stack) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
    void go(Context& to) { swapcontext(&context, &to.context); }
};
#endif

struct Fiber { Context context; std::unique_ptr<char[]> stack; State state; int turn, line; };
static std::vector<Fiber> fibers;
static Context scheduler;
static int now;
static std::function<void()> body;
static std::vector<uint64_t> slots[2];

static void wait(State what, int line) {
    Fiber& own = fibers[now];
    own.state = what;
    own.line = line;
    own.context.go(scheduler);
}
static void entry() {
    body();
    wait(Done, 0);
}
template <class V> V from_lane(V value, int mask, bool exclusive_or, int line) {
    static_assert(sizeof(V) <= 8, "a register or two");
    int me = now, side = fibers[me].turn++ & 1;
    memcpy(&slots[side][me], &value, sizeof value);
    wait(AtWarp, line);
    int from = exclusive_or ? me ^ mask : (me & ~31) | (mask & 31);
    memcpy(&value, &slots[side][from], sizeof value);
    return value;
}

[[noreturn]] static void fail(const char* why) {
    throw std::runtime_error(std::string(why) + " (block " + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", "
                             + std::to_string(blockIdx.z) + ")");
}
// Whether all of these threads wait for the same; an error if some do and others never will.
static bool together(int from, int to, State what, const char* where) {
    int at = 0;
    for (int i = from; i < to; ++i) at += fibers[i].state == what;
    if (at == 0) return false;
    for (int i = from; i < to; ++i)
        if (fibers[i].state != what || fibers[i].line != fibers[from].line) fail(where);
    return true;
}
static void let_go(int from, int to) {
    for (int i = from; i < to; ++i) fibers[i].state = Ready;
}
// Runs a warp until none of its threads can go on by itself; says whether all have ended.
static bool run_warp(int from, int to) {
    do {
        for (now = from; now < to; ++now) {
            if (fibers[now].state != Ready) continue;
            unsigned u = unsigned(now);
            threadIdx = {u, 0, 0};
            scheduler.go(fibers[now].context);
        }
        if (!together(from, to, AtWarp, "not all lanes of a warp meet at a shuffle")) break;
        let_go(from, to);
    } while (true);
    return fibers[from].state == Done;
}
static void run_block(int threads) {
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.state = Ready;
        fiber.turn = 0;
        fiber.context.begin(fiber.stack.get());
    }
    do {
        for (int from = 0; from < threads; from += 32) run_warp(from, from + 32 < threads ? from + 32 : threads);
        if (!together(0, threads, AtBlock, "not all threads of a block meet at a barrier")) return;
        let_go(0, threads);
    } while (true);
}
static void launch(const unsigned grid[3], unsigned threads) {
    if (threads == 0 || threads > 1024 || threads % 32) throw std::runtime_error("blocks are 1 to 32 whole warps");
    if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535) throw std::runtime_error("no such grid");
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    if (fibers.size() < threads) fibers.resize(threads);
    for (auto& side : slots) side.resize(1024);
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                run_block(int(threads));
            }
}

template <class P> constexpr char kind() {
    static_assert(std::is_pointer_v<P> || std::is_same_v<P, float> || std::is_same_v<P, int>, "parameters are pointers, int or float");
    return std::is_pointer_v<P> ? 'p' : std::is_same_v<P, float> ? 'f' : 'i';
}
template <class... P, size_t... I>
static void call(void (*kernel)(P...), const unsigned grid[3], unsigned threads, void** arguments, const char* kinds, std::index_sequence<I...>) {
    const char expected[] = {kind<P>()..., 0};
    if (strcmp(expected, kinds)) throw std::runtime_error(std::string("it takes ") + expected + " and was given " + kinds);
    body = [=] { kernel(*static_cast<P*>(arguments[I])...); };
    launch(grid, threads);
}
template <class... P> static void call(void (*kernel)(P...), const unsigned grid[3], unsigned threads, void** arguments, const char* kinds) {
    call(kernel, grid, threads, arguments, kinds, std::index_sequence_for<P...>());
}
}  // namespace shim

#define SYNC() shim::wait(shim::AtBlock, __LINE__)
#define SHFL_XOR(value, mask) shim::from_lane(value, mask, true, __LINE__)
#define SHFL(value, lane) shim::from_lane(value, lane, false, __LINE__)
#define SHARED(type, name, count) static type name[count]

// What follows the kernels: one function by which they are run. Its answer is null, or what went wrong.
#define ENTRY(TABLE)                                                                                                                    \
    extern "C" const char* engraft_launch(const char* name, const unsigned* grid, unsigned threads, void** arguments, const char* kinds) { \
        static std::string trouble;                                                                                                     \
        try {                                                                                                                           \
            TABLE trouble = "no such kernel";                                                                                           \
        } catch (const std::exception& error) {                                                                                         \
            trouble = error.what();                                                                                                     \
        }                                                                                                                               \
        return trouble.c_str();                                                                                                         \
    }
#define ENTRY_OF(symbol, kernel)                                       \
    if (!strcmp(name, #symbol)) {                                      \
        shim::call(kernel, grid, threads, arguments, kinds);           \
        return nullptr;                                                \
    }
