// Gradients that a library stored as activations are: as f32, four of them a thread.
extern "C" __global__ void widen_gradients(const bf16* __restrict__ low, float* __restrict__ gradients, int pieces) {
    int at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= pieces) return;
    Piece<float> wide;
    for (int i = 0; i < 4; ++i) wide.at[i] = low[size_t(at) * 4 + i];
    store(gradients + size_t(at) * 4, wide);
}

// Adds the product of each weight and its gradient, or the square of it, to a sum that is kept as two floats, so that it has almost the
// bits of a double; four of them a thread.
extern "C" __global__ void add_saliency(const float* __restrict__ weights, const float* __restrict__ gradients, float* __restrict__ high,
                                        float* __restrict__ low, int pieces, int squared) {
    int at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= pieces) return;
    size_t first = size_t(at) * 4;
    Piece<float> w = load(weights + first), g = load(gradients + first), h = load(high + first), l = load(low + first);
    for (int i = 0; i < 4; ++i) {
        double product = double(w.at[i]) * double(g.at[i]), sum = double(h.at[i]) + double(l.at[i]) + (squared ? product * product : product);
        h.at[i] = float(sum);
        l.at[i] = float(sum - double(h.at[i]));
    }
    store(high + first, h);
    store(low + first, l);
}
