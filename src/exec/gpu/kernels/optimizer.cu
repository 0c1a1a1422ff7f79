// Steps over all parameters in one buffer. A thread has four numbers; the first `decaying` numbers have weight decay.

struct alignas(8) OptimizerLow { bf16 at[4]; };
__device__ inline void optimizer_low(bf16* low, int at, const Piece<float>& w) {
    if (!low) return;
    OptimizerLow piece;
    for (int i = 0; i < 4; ++i) piece.at[i] = bf16(w.at[i]);
    *reinterpret_cast<OptimizerLow*>(low + size_t(at) * 4) = piece;
}

extern "C" __global__ void sgd_step(float* __restrict__ weights, const float* __restrict__ gradients, float* __restrict__ velocity, bf16* __restrict__ low,
                                    const float* __restrict__ scalars, int pieces, int decaying, float momentum, float weight_decay, int nesterov) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * 4;
    float rate = scalars[0], scale = scalars[4];
    Piece<float> w = load(weights + first), g = load(gradients + first), v = load(velocity + first);
    for (int i = 0; i < 4; ++i) {
        float slope = scale * g.at[i] + (at * 4 + i < decaying ? weight_decay : 0.f) * w.at[i];
        v.at[i] = momentum * v.at[i] + slope;
        w.at[i] -= rate * (nesterov ? slope + momentum * v.at[i] : v.at[i]);
    }
    store(velocity + first, v);
    store(weights + first, w);
    optimizer_low(low, at, w);
}

extern "C" __global__ void adamw_step(float* __restrict__ weights, const float* __restrict__ gradients, float* __restrict__ mean, float* __restrict__ square,
                                      bf16* __restrict__ low, const float* __restrict__ scalars, int pieces, int decaying, float beta, float beta_square,
                                      float eps, float weight_decay) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * 4;
    float rate = scalars[0], root = scalars[1], base = scalars[2], scale = scalars[4];
    Piece<float> w = load(weights + first), g = load(gradients + first), m = load(mean + first), s = load(square + first);
    for (int i = 0; i < 4; ++i) {
        float slope = scale * g.at[i];
        m.at[i] += (1.f - beta) * (slope - m.at[i]);
        s.at[i] = beta_square * s.at[i] + (1.f - beta_square) * slope * slope;
        w.at[i] -= base * (at * 4 + i < decaying ? weight_decay : 0.f) * w.at[i];
        w.at[i] -= rate * m.at[i] / (sqrtf(s.at[i]) / root + eps);
    }
    store(mean + first, m);
    store(square + first, s);
    store(weights + first, w);
    optimizer_low(low, at, w);
}

// The sum over a block, in its first thread.
__device__ inline double optimizer_block_sum(double value) {
    SHARED(double, part, 32);
    for (int mask = 16; mask; mask >>= 1) value += SHFL_XOR(value, mask);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
    SYNC();
    if (threadIdx.x == 0)
        for (int w = 1; w < int(blockDim.x / 32); ++w) value += part[w];
    return value;
}

// The factor that brings a gradient down to the length that is allowed; NaN stays.
__device__ inline void optimizer_shrink(double squares, float* scalars) {
    double factor = double(scalars[3]) / (sqrt(squares) + 1e-6);
    scalars[4] = factor >= 1. ? 1.f : float(factor);
}

// Sums of squares of slices, a block each; where there is one slice, the factor at once.
extern "C" __global__ void gradient_squares(const float* __restrict__ gradients, double* __restrict__ partial, float* scalars, int pieces) {
    double sum = 0.;
    int step = int(gridDim.x * blockDim.x);
#pragma unroll 4
    for (int at = ew_thread(); at < pieces; at += step) {
        Piece<float> g = load(gradients + size_t(at) * 4);
        for (int i = 0; i < 4; ++i) sum += double(g.at[i]) * g.at[i];
    }
    sum = optimizer_block_sum(sum);
    if (threadIdx.x != 0) return;
    if (gridDim.x == 1) optimizer_shrink(sum, scalars);
    else partial[blockIdx.x] = sum;
}

extern "C" __global__ void gradient_scale(const double* __restrict__ partial, float* scalars, int slices) {
    double sum = 0.;
    for (int at = threadIdx.x; at < slices; at += blockDim.x) sum += partial[at];
    sum = optimizer_block_sum(sum);
    if (threadIdx.x == 0) optimizer_shrink(sum, scalars);
}

// The flag becomes 1 where a number is infinite or none.
extern "C" __global__ void find_not_finite(const float* __restrict__ numbers, u32* flag, int count) {
    int step = int(gridDim.x * blockDim.x);
    bool found = false;
#pragma unroll 4
    for (int at = ew_thread(); at < count; at += step) found |= (__float_as_uint(numbers[at]) & 0x7f800000u) == 0x7f800000u;
    if (found) *flag = 1;
}

extern "C" __global__ void to_low(const float* __restrict__ numbers, bf16* __restrict__ low, int pieces) {
    int at = ew_thread();
    if (at < pieces) optimizer_low(low, at, load(numbers + size_t(at) * 4));
}
