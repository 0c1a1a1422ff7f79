// Convolutions that no library does well: those with a kernel for each channel, those in groups, and what follows a library's.

struct ConvolutionSizes {
    int input[2], output[2], kernel[2], stride[2], padding[2], dilation[2];
};
#define CONVOLUTION_PARAMETERS \
    int input_h, int input_w, int output_h, int output_w, int kernel_h, int kernel_w, int stride_h, int stride_w, int padding_h, int padding_w, \
        int dilation_h, int dilation_w
#define CONVOLUTION_ARGUMENTS \
    input_h, input_w, output_h, output_w, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w
#define CONVOLUTION_SIZES \
    ConvolutionSizes{{input_h, input_w}, {output_h, output_w}, {kernel_h, kernel_w}, {stride_h, stride_w}, {padding_h, padding_w}, {dilation_h, dilation_w}}

// The output coordinate whose window has input coordinate `at` under its offset `k`, or -1.
__device__ inline int convolution_target(const ConvolutionSizes& s, int axis, int at, int k) {
    int start = at + s.padding[axis] - k * s.dilation[axis];
    if (start < 0 || start % s.stride[axis]) return -1;
    start /= s.stride[axis];
    return start < s.output[axis] ? start : -1;
}

// What each thread writes at the end: `sum`, with what is there or not, behind ReLU or not.
template <class T> __device__ inline void convolution_write(T* to, const float (&sum)[Piece<T>::LEN], bool add, bool relu) {
    Piece<T> out;
    if (add) out = load(to);
    for (int k = 0; k < Piece<T>::LEN; ++k) {
        float value = add ? float(out.at[k]) + sum[k] : sum[k];
        out.at[k] = T(relu && value < 0.f ? 0.f : value);
    }
    store(to, out);
}

// y = relu(y + bias) in place.
template <class T>
__device__ void convolution_bias(const float* bias, T* y, int relu, int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(pieces, width);
    if (!tile.active) return;
    float summand[LEN];
    reduce_channels<LEN>(bias, tile.column, channels, 0.f, summand);
    int first = int(blockIdx.x) * slice, end = min(first + slice, rows);
    constexpr int MANY = 4;
    for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
        Piece<T> piece[MANY];
        reduce_load(y, tile, row, end, pieces, piece);
#pragma unroll
        for (int i = 0; i < MANY; ++i)
            for (int k = 0; k < LEN; ++k) {
                float value = float(piece[i].at[k]) + summand[k];
                piece[i].at[k] = T(relu && value < 0.f ? 0.f : value);
            }
        reduce_store(y, tile, row, end, pieces, piece);
    }
}
KERNEL(convolution_bias, (const float* bias, T* y, int relu, int rows, int channels, int pieces, int width, int slice),
       (bias, y, relu, rows, channels, pieces, width, slice))

// A kernel for each channel; weights are taps x channels.

// A square window of K with stride S: Q outputs next to each other in a thread, a piece of channels each. With `flip` the kernel is read
// from its end, as the way back to the input of a stride of 1 does. WHOLE: weights, too, are read in pieces.
template <class T, int K, int S, int Q, bool WHOLE>
__device__ inline void convolution_depthwise_strip(const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                              T* __restrict__ y, int flip, int add, int relu, int examples, int channels, int pieces,
                                              const ConvolutionSizes& s) {
    constexpr int LEN = Piece<T>::LEN, COLUMNS = (Q - 1) * S + K;
    int strips = (s.output[1] + Q - 1) / Q;
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= size_t(examples) * s.output[0] * strips * pieces) return;
    int column = int(index % pieces), rest = int(index / pieces), ox = rest % strips * Q;
    rest /= strips;
    int oy = rest % s.output[0], example = rest / s.output[0];
    float start[LEN], sum[Q][LEN];
    reduce_channels<LEN>(bias, column, channels, 0.f, start);
    for (int q = 0; q < Q; ++q)
        for (int k = 0; k < LEN; ++k) sum[q][k] = start[k];
    int left = ox * S - s.padding[1], top = oy * S - s.padding[0];
#pragma unroll
    for (int ky = 0; ky < K; ++ky) {
        int iy = top + ky;
        if (iy < 0 || iy >= s.input[0]) continue;
        const T* line = x + ((size_t(example) * s.input[0] + iy) * s.input[1] * pieces + column) * LEN;
        Piece<T> seen[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
            int ix = left + j;
            seen[j] = ix >= 0 && ix < s.input[1] ? load(line + size_t(ix) * pieces * LEN) : Piece<T>{};
        }
#pragma unroll
        for (int kx = 0; kx < K; ++kx) {
            int tap = ky * K + kx;
            const float* from = weight + size_t(flip ? K * K - 1 - tap : tap) * channels + column * LEN;
            float w[LEN];
#pragma unroll
            for (int k = 0; k < LEN; k += 4) {
                if constexpr (WHOLE) {
                    Piece<float> four = load(from + k);
                    for (int i = 0; i < 4; ++i) w[k + i] = four.at[i];
                } else {
                    for (int i = k; i < k + 4; ++i) w[i] = column * LEN + i < channels ? from[i] : 0.f;
                }
            }
#pragma unroll
            for (int q = 0; q < Q; ++q)
#pragma unroll
                for (int k = 0; k < LEN; ++k) sum[q][k] = fmaf(float(seen[q * S + kx].at[k]), w[k], sum[q][k]);
        }
    }
    T* to = y + (((size_t(example) * s.output[0] + oy) * s.output[1] + ox) * pieces + column) * LEN;
#pragma unroll
    for (int q = 0; q < Q; ++q)
        if (ox + q < s.output[1]) convolution_write(to + size_t(q) * pieces * LEN, sum[q], add, relu);
}

#define CONVOLUTION_DEPTHWISE_PARAMETERS \
    (const T* x, const float* weight, const float* bias, T* y, int flip, int add, int relu, int examples, int channels, int pieces, CONVOLUTION_PARAMETERS)
#define CONVOLUTION_DEPTHWISE_ARGUMENTS (x, weight, bias, y, flip, add, relu, examples, channels, pieces, CONVOLUTION_ARGUMENTS)
#define CONVOLUTION_DEPTHWISE(name, k, s, q)                                                                                     \
    template <class T> __device__ void name CONVOLUTION_DEPTHWISE_PARAMETERS {                                                   \
        if (channels % Piece<T>::LEN == 0 && (size_t(weight) & 15) == 0)                                                    \
            convolution_depthwise_strip<T, k, s, q, true>(x, weight, bias, y, flip, add, relu, examples, channels, pieces, CONVOLUTION_SIZES); \
        else                                                                                                                \
            convolution_depthwise_strip<T, k, s, q, false>(x, weight, bias, y, flip, add, relu, examples, channels, pieces, CONVOLUTION_SIZES); \
    }
// Outputs of a thread for which there are registers.
#define CONVOLUTION_OUTPUTS (Piece<T>::LEN == 4 ? 4 : 2)
CONVOLUTION_DEPTHWISE(convolution_depthwise31, 3, 1, CONVOLUTION_OUTPUTS)
CONVOLUTION_DEPTHWISE(convolution_depthwise32, 3, 2, 2)
CONVOLUTION_DEPTHWISE(convolution_depthwise51, 5, 1, CONVOLUTION_OUTPUTS)
CONVOLUTION_DEPTHWISE(convolution_depthwise52, 5, 2, 2)
CONVOLUTION_DEPTHWISE(convolution_depthwise71, 7, 1, CONVOLUTION_OUTPUTS)
KERNEL(convolution_depthwise31, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)
KERNEL(convolution_depthwise32, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)
KERNEL(convolution_depthwise51, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)
KERNEL(convolution_depthwise52, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)
KERNEL(convolution_depthwise71, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)

// Adds to `sum` a piece times the weights of its channels.
template <class T>
__device__ inline void convolution_add(const T* from, const float* weight, int column, int channels, float (&sum)[Piece<T>::LEN]) {
    Piece<T> piece = load(from);
    float w[Piece<T>::LEN];
    reduce_channels<Piece<T>::LEN>(weight, column, channels, 0.f, w);
    for (int k = 0; k < Piece<T>::LEN; ++k) sum[k] = fmaf(float(piece.at[k]), w[k], sum[k]);
}

// Any window: one output in a thread.
template <class T> __device__ void convolution_depthwise CONVOLUTION_DEPTHWISE_PARAMETERS {
    constexpr int LEN = Piece<T>::LEN;
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    int positions = output_h * output_w;
    if (index >= size_t(examples) * positions * pieces) return;
    int column = int(index % pieces), row = int(index / pieces), oy = row % positions / output_w, ox = row % output_w;
    float sum[LEN];
    reduce_channels<LEN>(bias, column, channels, 0.f, sum);
    for (int ky = 0; ky < kernel_h; ++ky) {
        int iy = oy * stride_h + ky * dilation_h - padding_h;
        if (iy < 0 || iy >= input_h) continue;
        const T* line = x + ((size_t(row / positions) * input_h + iy) * input_w * pieces + column) * LEN;
        for (int kx = 0; kx < kernel_w; ++kx) {
            int ix = ox * stride_w + kx * dilation_w - padding_w, tap = ky * kernel_w + kx;
            if (ix < 0 || ix >= input_w) continue;
            convolution_add(line + size_t(ix) * pieces * LEN, weight + size_t(tap) * channels, column, channels, sum);
        }
    }
    convolution_write(y + size_t(index) * LEN, sum, add, relu);
}
KERNEL(convolution_depthwise, CONVOLUTION_DEPTHWISE_PARAMETERS, CONVOLUTION_DEPTHWISE_ARGUMENTS)

// The gradient of the input, any window: one position of it in a thread.
template <class T>
__device__ void convolution_depthwise_input(const T* __restrict__ dy, const float* __restrict__ weight, T* __restrict__ dx, int add, int examples,
                                       int channels, int pieces, CONVOLUTION_PARAMETERS) {
    constexpr int LEN = Piece<T>::LEN;
    ConvolutionSizes s = CONVOLUTION_SIZES;
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    int positions = input_h * input_w;
    if (index >= size_t(examples) * positions * pieces) return;
    int column = int(index % pieces), row = int(index / pieces), iy = row % positions / input_w, ix = row % input_w;
    // Without dilation only every so many-th offset meets a window.
    int step_y = dilation_h == 1 ? stride_h : 1, step_x = dilation_w == 1 ? stride_w : 1;
    float sum[LEN] = {};
    for (int ky = dilation_h == 1 ? (iy + padding_h) % stride_h : 0; ky < kernel_h; ky += step_y) {
        int oy = convolution_target(s, 0, iy, ky);
        if (oy < 0) continue;
        const T* line = dy + ((size_t(row / positions) * output_h + oy) * output_w * pieces + column) * LEN;
        for (int kx = dilation_w == 1 ? (ix + padding_w) % stride_w : 0; kx < kernel_w; kx += step_x) {
            int ox = convolution_target(s, 1, ix, kx), tap = ky * kernel_w + kx;
            if (ox < 0) continue;
            convolution_add(line + size_t(ox) * pieces * LEN, weight + size_t(tap) * channels, column, channels, sum);
        }
    }
    convolution_write(dx + size_t(index) * LEN, sum, add, false);
}
KERNEL(convolution_depthwise_input,
       (const T* dy, const float* weight, T* dx, int add, int examples, int channels, int pieces, CONVOLUTION_PARAMETERS),
       (dy, weight, dx, add, examples, channels, pieces, CONVOLUTION_ARGUMENTS))

// The gradient of a square kernel of K with stride S, in a tile of columns: R of its rows, from row R blockIdx.z on. The units that are
// shared among slices and lanes are segments of `length` outputs of a line, along which a thread keeps what the window sees.
template <class T, int K, int S, int R>
__device__ inline void convolution_depthwise_weight_rows(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ sums, int examples,
                                                    int channels, int pieces, int width, int slice, int length, const ConvolutionSizes& s) {
    // Sums are added up over the lanes a row of the kernel at a time, if there is shared memory for that.
    constexpr int LEN = Piece<T>::LEN, M = K == 3 ? K * LEN : LEN, G = R * K * LEN / M;
    SHARED(float, shared, REDUCE_SHARED(M));
    ReduceTile tile = reduce_tile(pieces, width);
    int segments = (s.output[1] + length - 1) / length, units = examples * s.output[0] * segments;
    int end = min((int(blockIdx.x) + 1) * slice, units), top = int(blockIdx.z) * R - s.padding[0];
    float sum[G][M] = {};
    if (tile.active)
        for (int unit = int(blockIdx.x) * slice + tile.lane; unit < end; unit += tile.lanes) {
            int first = unit % segments * length, line = unit / segments, oy = line % s.output[0], example = line / s.output[0];
            int last = min(first + length, s.output[1]);
            const T* from[R];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                int iy = oy * S + top + r;
                bool inside = iy >= 0 && iy < s.input[0];
                from[r] = inside ? x + ((size_t(example) * s.input[0] + iy) * s.input[1] * pieces + tile.column) * LEN : nullptr;
            }
            const T* of_y = dy + (size_t(line) * s.output[1] * pieces + tile.column) * LEN;
            Piece<T> seen[R][K] = {};
            auto look = [&](int r, int ix) {
                return from[r] && ix >= 0 && ix < s.input[1] ? load(from[r] + size_t(ix) * pieces * LEN) : Piece<T>{};
            };
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int kx = S; kx < K; ++kx) seen[r][kx] = look(r, (first - 1) * S - s.padding[1] + kx);
            for (int ox = first; ox < last; ++ox) {
                Piece<T> gradient = load(of_y + size_t(ox) * pieces * LEN);
#pragma unroll
                for (int r = 0; r < R; ++r)
#pragma unroll
                    for (int kx = 0; kx < K; ++kx) seen[r][kx] = kx + S < K ? seen[r][(kx + S) % K] : look(r, ox * S - s.padding[1] + kx);
#pragma unroll
                for (int tap = 0; tap < R * K; ++tap)
#pragma unroll
                    for (int k = 0; k < LEN; ++k) {
                        float& to = sum[(tap * LEN + k) / M][(tap * LEN + k) % M];
                        to = fmaf(float(gradient.at[k]), float(seen[tap / K][tap % K].at[k]), to);
                    }
            }
        }
    float* to = sums + (size_t(blockIdx.x) * K * K + int(blockIdx.z) * R * K) * channels;
#pragma unroll
    for (int g = 0; g < G; ++g) {
        reduce_lanes(tile, shared, sum[g]);
        if (!tile.active || tile.lane) continue;
#pragma unroll
        for (int tap = 0; tap < M / LEN; ++tap)
            reduce_put<LEN>(to + size_t(g * (M / LEN) + tap) * channels, tile.column, channels, sum[g] + tap * LEN);
    }
}

#define CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS \
    (const T* x, const T* dy, float* sums, int examples, int channels, int pieces, int width, int slice, int length, CONVOLUTION_PARAMETERS)
#define CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS (x, dy, sums, examples, channels, pieces, width, slice, length, CONVOLUTION_ARGUMENTS)
#define CONVOLUTION_DEPTHWISE_WEIGHT(name, k, s, r)                                                                                            \
    template <class T> __device__ void name CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS {                                                          \
        convolution_depthwise_weight_rows<T, k, s, r>(x, dy, sums, examples, channels, pieces, width, slice, length, CONVOLUTION_SIZES);       \
    }
CONVOLUTION_DEPTHWISE_WEIGHT(convolution_depthwise_weight31, 3, 1, 3)
CONVOLUTION_DEPTHWISE_WEIGHT(convolution_depthwise_weight32, 3, 2, 3)
CONVOLUTION_DEPTHWISE_WEIGHT(convolution_depthwise_weight51, 5, 1, 1)
CONVOLUTION_DEPTHWISE_WEIGHT(convolution_depthwise_weight52, 5, 2, 1)
CONVOLUTION_DEPTHWISE_WEIGHT(convolution_depthwise_weight71, 7, 1, 1)
KERNEL(convolution_depthwise_weight31, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)
KERNEL(convolution_depthwise_weight32, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)
KERNEL(convolution_depthwise_weight51, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)
KERNEL(convolution_depthwise_weight52, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)
KERNEL(convolution_depthwise_weight71, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)

// Any window: one tap, blockIdx.z.
template <class T> __device__ void convolution_depthwise_weight CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    int tap = int(blockIdx.z), segments = (output_w + length - 1) / length, units = examples * output_h * segments;
    int end = min((int(blockIdx.x) + 1) * slice, units);
    float sum[LEN] = {};
    if (tile.active)
        for (int unit = int(blockIdx.x) * slice + tile.lane; unit < end; unit += tile.lanes) {
            int first = unit % segments * length, line = unit / segments, last = min(first + length, output_w);
            int iy = line % output_h * stride_h + tap / kernel_w * dilation_h - padding_h;
            if (iy < 0 || iy >= input_h) continue;
            const T* from = x + ((size_t(line / output_h) * input_h + iy) * input_w * pieces + tile.column) * LEN;
            const T* of_y = dy + (size_t(line) * output_w * pieces + tile.column) * LEN;
            for (int ox = first; ox < last; ++ox) {
                int ix = ox * stride_w + tap % kernel_w * dilation_w - padding_w;
                if (ix < 0 || ix >= input_w) continue;
                Piece<T> seen = load(from + size_t(ix) * pieces * LEN), gradient = load(of_y + size_t(ox) * pieces * LEN);
                for (int k = 0; k < LEN; ++k) sum[k] = fmaf(float(gradient.at[k]), float(seen.at[k]), sum[k]);
            }
        }
    reduce_lanes(tile, shared, sum);
    if (!tile.active || tile.lane) return;
    reduce_put<LEN>(sums + (size_t(blockIdx.x) * kernel_h * kernel_w + tap) * channels, tile.column, channels, sum);
}
KERNEL(convolution_depthwise_weight, CONVOLUTION_DEPTHWISE_WEIGHT_PARAMETERS, CONVOLUTION_DEPTHWISE_WEIGHT_ARGUMENTS)

// Groups of channels; weights are outputs x taps x inputs of a group.

// Weights as taps x inputs x outputs, so that threads of outputs next to each other read what lies next to each other.
extern "C" __global__ void convolution_turn(const float* __restrict__ weight, float* __restrict__ turned, int outputs, int depth) {
    int index = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (index < outputs * depth) turned[index] = weight[size_t(index % outputs) * depth + index / outputs];
}

// One output channel at four positions in a thread; V inputs are read at once.
template <class T, int V>
__device__ inline void convolution_grouped_rows(const T* __restrict__ x, const float* __restrict__ turned, const float* __restrict__ bias,
                                                T* __restrict__ y, int relu, int groups, int rows, int outputs, int of_x, int of_y, int channels,
                                                const ConvolutionSizes& s) {
    constexpr int Q = 4;
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    int o = int(index % of_y), first = int(index / of_y) * Q, positions = s.output[0] * s.output[1], inputs = channels / groups;
    if (first >= rows) return;
    float sum[Q];
    int oy[Q], ox[Q];
    size_t image[Q];
    for (int q = 0; q < Q; ++q) {
        int row = min(first + q, rows - 1), at = row % positions;
        sum[q] = bias && o < outputs ? bias[o] : 0.f;
        oy[q] = at / s.output[1];
        ox[q] = at % s.output[1];
        image[q] = size_t(row / positions) * s.input[0];
    }
    int begin = o < outputs ? o / (outputs / groups) * inputs : 0;
    for (int ky = 0; o < outputs && ky < s.kernel[0]; ++ky)
        for (int kx = 0; kx < s.kernel[1]; ++kx) {
            const T* from[Q];
            for (int q = 0; q < Q; ++q) {
                int iy = oy[q] * s.stride[0] + ky * s.dilation[0] - s.padding[0], ix = ox[q] * s.stride[1] + kx * s.dilation[1] - s.padding[1];
                bool inside = iy >= 0 && iy < s.input[0] && ix >= 0 && ix < s.input[1];
                from[q] = inside ? x + ((image[q] + iy) * s.input[1] + ix) * of_x + begin : nullptr;
            }
            const float* w = turned + size_t(ky * s.kernel[1] + kx) * inputs * outputs + o;
            for (int i = 0; i < inputs; i += V) {
                float factor[V], value[V];
                for (int k = 0; k < V; ++k) factor[k] = w[size_t(i + k) * outputs];
                for (int q = 0; q < Q; ++q) {
                    if (!from[q]) continue;
                    norms_load<V>(from[q] + i, value);
                    for (int k = 0; k < V; ++k) sum[q] = fmaf(value[k], factor[k], sum[q]);
                }
            }
        }
    for (int q = 0; q < Q; ++q)
        if (first + q < rows) y[size_t(first + q) * of_y + o] = T(relu && sum[q] < 0.f ? 0.f : sum[q]);
}
template <class T>
__device__ void convolution_grouped(const T* x, const float* turned, const float* bias, T* y, int relu, int groups, int rows, int outputs, int of_x,
                                    int of_y, int channels, CONVOLUTION_PARAMETERS) {
    ConvolutionSizes s = CONVOLUTION_SIZES;
    if (channels / groups % Piece<T>::LEN) convolution_grouped_rows<T, 1>(x, turned, bias, y, relu, groups, rows, outputs, of_x, of_y, channels, s);
    else convolution_grouped_rows<T, Piece<T>::LEN>(x, turned, bias, y, relu, groups, rows, outputs, of_x, of_y, channels, s);
}
KERNEL(convolution_grouped,
       (const T* x, const float* turned, const float* bias, T* y, int relu, int groups, int rows, int outputs, int of_x, int of_y, int channels,
        CONVOLUTION_PARAMETERS),
       (x, turned, bias, y, relu, groups, rows, outputs, of_x, of_y, channels, CONVOLUTION_ARGUMENTS))

// One input channel at one position in a thread; V gradients are read at once.
template <class T, int V>
__device__ inline void convolution_grouped_input_rows(const T* __restrict__ dy, const float* __restrict__ weight, T* __restrict__ dx, int add,
                                                      int groups, int rows, int outputs, int of_x, int of_y, int channels, const ConvolutionSizes& s) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    int c = int(index % of_x), row = int(index / of_x), positions = s.input[0] * s.input[1], inputs = channels / groups;
    if (row >= rows) return;
    int at = row % positions, iy = at / s.input[1], ix = at % s.input[1], taps = s.kernel[0] * s.kernel[1];
    int of_group = outputs / groups, begin = c / inputs * of_group;
    float sum = 0.f;
    for (int ky = 0; c < channels && ky < s.kernel[0]; ++ky) {
        int oy = convolution_target(s, 0, iy, ky);
        if (oy < 0) continue;
        for (int kx = 0; kx < s.kernel[1]; ++kx) {
            int ox = convolution_target(s, 1, ix, kx);
            if (ox < 0) continue;
            const T* from = dy + ((size_t(row / positions) * s.output[0] + oy) * s.output[1] + ox) * of_y + begin;
            const float* w = weight + (size_t(begin) * taps + ky * s.kernel[1] + kx) * inputs + c % inputs;
            for (int o = 0; o < of_group; o += V) {
                float value[V];
                norms_load<V>(from + o, value);
                for (int k = 0; k < V; ++k) sum = fmaf(value[k], w[size_t(o + k) * taps * inputs], sum);
            }
        }
    }
    dx[index] = T(add ? float(dx[index]) + sum : sum);
}
template <class T>
__device__ void convolution_grouped_input(const T* dy, const float* weight, T* dx, int add, int groups, int rows, int outputs, int of_x, int of_y,
                                          int channels, CONVOLUTION_PARAMETERS) {
    ConvolutionSizes s = CONVOLUTION_SIZES;
    if (outputs / groups % Piece<T>::LEN) convolution_grouped_input_rows<T, 1>(dy, weight, dx, add, groups, rows, outputs, of_x, of_y, channels, s);
    else convolution_grouped_input_rows<T, Piece<T>::LEN>(dy, weight, dx, add, groups, rows, outputs, of_x, of_y, channels, s);
}
KERNEL(convolution_grouped_input,
       (const T* dy, const float* weight, T* dx, int add, int groups, int rows, int outputs, int of_x, int of_y, int channels, CONVOLUTION_PARAMETERS),
       (dy, weight, dx, add, groups, rows, outputs, of_x, of_y, channels, CONVOLUTION_ARGUMENTS))

// One weight in a thread, over the slice blockIdx.y of the output's rows.
template <class T>
__device__ void convolution_grouped_weight(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ sums, int groups, int rows,
                                           int slice, int outputs, int of_x, int of_y, int channels, CONVOLUTION_PARAMETERS) {
    int index = int(blockIdx.x * blockDim.x + threadIdx.x), inputs = channels / groups, taps = kernel_h * kernel_w;
    if (index >= outputs * taps * inputs) return;
    int i = index % inputs, tap = index / inputs % taps, o = index / inputs / taps, positions = output_h * output_w;
    int c = o / (outputs / groups) * inputs + i, down = tap / kernel_w * dilation_h - padding_h, right = tap % kernel_w * dilation_w - padding_w;
    int row = int(blockIdx.y) * slice, end = min(row + slice, rows);
    int example = row / positions, oy = row % positions / output_w, ox = row % output_w;
    float sum = 0.f;
    for (; row < end; ++row) {
        int iy = oy * stride_h + down, ix = ox * stride_w + right;
        if (iy >= 0 && iy < input_h && ix >= 0 && ix < input_w)
            sum = fmaf(float(dy[size_t(row) * of_y + o]), float(x[((size_t(example) * input_h + iy) * input_w + ix) * of_x + c]), sum);
        if (++ox < output_w) continue;
        ox = 0;
        if (++oy < output_h) continue;
        oy = 0;
        ++example;
    }
    sums[size_t(blockIdx.y) * outputs * taps * inputs + index] = sum;
}
KERNEL(convolution_grouped_weight,
       (const T* x, const T* dy, float* sums, int groups, int rows, int slice, int outputs, int of_x, int of_y, int channels, CONVOLUTION_PARAMETERS),
       (x, dy, sums, groups, rows, slice, outputs, of_x, of_y, channels, CONVOLUTION_ARGUMENTS))
