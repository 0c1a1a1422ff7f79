// Gradients that a library stored as activations are: as f32, four of them a thread.
extern "C" __global__ void widen_gradients(const bf16* __restrict__ low, float* __restrict__ gradients, int pieces) {
    int at = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= pieces) return;
    Piece<float> wide;
    for (int i = 0; i < 4; ++i) wide.at[i] = low[size_t(at) * 4 + i];
    store(gradients + size_t(at) * 4, wide);
}
