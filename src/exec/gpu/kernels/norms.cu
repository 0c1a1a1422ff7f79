// Normalisation of each example by itself. Tiles, slices and sums over lanes are those of reduce.cu.

// The sum over `lanes` threads next to each other, a power of two up to a warp, in all of them.
__device__ inline float norms_sum(float value, int lanes) {
    for (int mask = lanes / 2; mask; mask /= 2) value += SHFL_XOR(value, mask);
    return value;
}

// The sums of a and b over the block, in all threads.
__device__ inline void norms_block_sums(double& a, double& b, double* shared) {
    for (int mask = 16; mask; mask /= 2) {
        a += SHFL_XOR(a, mask);
        b += SHFL_XOR(b, mask);
    }
    int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    SYNC();
    if (threadIdx.x % 32 == 0) {
        shared[warp] = a;
        shared[32 + warp] = b;
    }
    SYNC();
    a = b = 0.;
    for (int i = 0; i < warps; ++i) {
        a += shared[i];
        b += shared[32 + i];
    }
}

// One group of all channels, one position: `lanes` threads for a row, each with N pieces of it in registers.
template <class T, int N>
__device__ inline void norms_layer_rows(const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                        T* __restrict__ y, float* __restrict__ moments, int rows, int channels, int pieces, int lanes, float eps) {
    constexpr int LEN = Piece<T>::LEN;
    int lane = int(threadIdx.x) % lanes, first = int(blockIdx.x * blockDim.x + threadIdx.x) / lanes, step = int(gridDim.x * blockDim.x) / lanes;
    float factor[N][LEN], summand[N][LEN];
    for (int i = 0; i < N; ++i) {
        reduce_channels<LEN>(weight, lane + i * lanes, channels, 1.f, factor[i]);
        reduce_channels<LEN>(bias, lane + i * lanes, channels, 0.f, summand[i]);
    }
    for (int turn = 0; turn < (rows + step - 1) / step; ++turn) {
        int row = first + turn * step;
        bool on = row < rows;
        Piece<T> piece[N];
        float sum = 0.f, squares = 0.f;
        for (int i = 0; i < N; ++i) {
            int column = lane + i * lanes;
            piece[i] = on && column < pieces ? load(x + (size_t(row) * pieces + column) * LEN) : Piece<T>{};
        }
        for (int i = 0; i < N; ++i)
            for (int k = 0; k < LEN; ++k) sum += float(piece[i].at[k]);
        float mean = norms_sum(sum, lanes) / channels;
        for (int i = 0; i < N; ++i)
            for (int k = 0; k < LEN; ++k) {
                float d = (lane + i * lanes) * LEN + k < channels ? float(piece[i].at[k]) - mean : 0.f;
                squares = fmaf(d, d, squares);
            }
        float inverse = 1.f / sqrtf(norms_sum(squares, lanes) / channels + eps);
        if (!on) continue;
        for (int i = 0; i < N; ++i) {
            int column = lane + i * lanes;
            if (column >= pieces) continue;
            for (int k = 0; k < LEN; ++k) piece[i].at[k] = T(fmaf((float(piece[i].at[k]) - mean) * inverse, factor[i][k], summand[i][k]));
            store(y + (size_t(row) * pieces + column) * LEN, piece[i]);
        }
        if (lane == 0) {
            moments[2 * size_t(row)] = mean;
            moments[2 * size_t(row) + 1] = inverse;
        }
    }
}
#define NORMS_LAYER_PARAMETERS \
    (const T* x, const float* weight, const float* bias, T* y, float* moments, int rows, int channels, int pieces, int lanes, float eps)
#define NORMS_LAYER_ARGUMENTS (x, weight, bias, y, moments, rows, channels, pieces, lanes, eps)
#define NORMS_LAYER(name, n)                                                                                   \
    template <class T> __device__ void name NORMS_LAYER_PARAMETERS {                                           \
        norms_layer_rows<T, n>(x, weight, bias, y, moments, rows, channels, pieces, lanes, eps);               \
    }
NORMS_LAYER(norms_layer1, 1)
NORMS_LAYER(norms_layer2, 2)
NORMS_LAYER(norms_layer4, 4)
// In bf16 four pieces are 1024 channels already, more are not kept in registers.
NORMS_LAYER(norms_layer8, (Piece<T>::LEN == 4 ? 8 : 4))
KERNEL(norms_layer1, NORMS_LAYER_PARAMETERS, NORMS_LAYER_ARGUMENTS)
KERNEL(norms_layer2, NORMS_LAYER_PARAMETERS, NORMS_LAYER_ARGUMENTS)
KERNEL(norms_layer4, NORMS_LAYER_PARAMETERS, NORMS_LAYER_ARGUMENTS)
KERNEL(norms_layer8, NORMS_LAYER_PARAMETERS, NORMS_LAYER_ARGUMENTS)

// The way back of norms_layer_rows: dx, and for each block the sums of dy x̂ and of dy over its rows.
template <class T, int N>
__device__ inline void norms_layer_back_rows(const T* __restrict__ x, const T* __restrict__ dy, const float* __restrict__ weight,
                                             const float* __restrict__ moments, T* __restrict__ dx, float* __restrict__ sums, int add, int rows,
                                             int channels, int pieces, int lanes) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, 2 * 1024);
    int lane = int(threadIdx.x) % lanes, first = int(blockIdx.x * blockDim.x + threadIdx.x) / lanes, step = int(gridDim.x * blockDim.x) / lanes;
    float factor[N][LEN], of_product[N][LEN] = {}, of_dy[N][LEN] = {};
    for (int i = 0; i < N; ++i) reduce_channels<LEN>(weight, lane + i * lanes, channels, 1.f, factor[i]);
    for (int turn = 0; turn < (rows + step - 1) / step; ++turn) {
        int row = first + turn * step;
        bool on = row < rows;
        Piece<T> of_x[N], of_y[N];
        for (int i = 0; i < N; ++i) {
            int column = lane + i * lanes;
            bool inside = on && column < pieces;
            of_x[i] = inside ? load(x + (size_t(row) * pieces + column) * LEN) : Piece<T>{};
            of_y[i] = inside ? load(dy + (size_t(row) * pieces + column) * LEN) : Piece<T>{};
        }
        float mean = on ? moments[2 * size_t(row)] : 0.f, inverse = on ? moments[2 * size_t(row) + 1] : 0.f, sum = 0.f, product = 0.f;
        for (int i = 0; i < N; ++i)
            for (int k = 0; k < LEN; ++k) {
                float gradient = of_y[i].at[k], normal = (float(of_x[i].at[k]) - mean) * inverse, weighted = gradient * factor[i][k];
                sum += weighted;
                product = fmaf(weighted, normal, product);
                of_product[i][k] = fmaf(gradient, normal, of_product[i][k]);
                of_dy[i][k] += gradient;
            }
        sum = norms_sum(sum, lanes) / channels;
        product = norms_sum(product, lanes) / channels;
        if (!on || !dx) continue;
        for (int i = 0; i < N; ++i) {
            int column = lane + i * lanes;
            if (column >= pieces) continue;
            T* to = dx + (size_t(row) * pieces + column) * LEN;
            Piece<T> out = {};
            if (add) out = load(to);
            for (int k = 0; k < LEN; ++k) {
                float normal = (float(of_x[i].at[k]) - mean) * inverse;
                float value = inverse * (float(of_y[i].at[k]) * factor[i][k] - sum - normal * product);
                // What lies behind the channels has a mean, too, but stays 0.
                if (column * LEN + k < channels) out.at[k] = T(add ? float(out.at[k]) + value : value);
            }
            store(to, out);
        }
    }
    if (!sums) return;
    for (int i = 0; i < N; ++i)
        for (int k = 0; k < LEN; ++k)
            for (int mask = lanes; mask < 32; mask *= 2) {
                of_product[i][k] += SHFL_XOR(of_product[i][k], mask);
                of_dy[i][k] += SHFL_XOR(of_dy[i][k], mask);
            }
    for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) {
        if (int(threadIdx.x) / 32 == warp && int(threadIdx.x) % 32 < lanes)
            for (int i = 0; i < N; ++i)
                for (int k = 0; k < LEN; ++k) {
                    int at = (i * LEN + k) * lanes + lane;
                    shared[at] = warp ? shared[at] + of_product[i][k] : of_product[i][k];
                    shared[1024 + at] = warp ? shared[1024 + at] + of_dy[i][k] : of_dy[i][k];
                }
        SYNC();
    }
    for (int at = threadIdx.x; at < N * LEN * lanes; at += blockDim.x) {
        int i = at / (LEN * lanes), k = at / lanes % LEN, channel = (at % lanes + i * lanes) * LEN + k;
        if (channel >= channels) continue;
        sums[size_t(blockIdx.x) * 2 * channels + channel] = shared[at];
        sums[(size_t(blockIdx.x) * 2 + 1) * channels + channel] = shared[1024 + at];
    }
}
#define NORMS_LAYER_BACK_PARAMETERS \
    (const T* x, const T* dy, const float* weight, const float* moments, T* dx, float* sums, int add, int rows, int channels, int pieces, int lanes)
#define NORMS_LAYER_BACK_ARGUMENTS (x, dy, weight, moments, dx, sums, add, rows, channels, pieces, lanes)
#define NORMS_LAYER_BACK(name, n)                                                                              \
    template <class T> __device__ void name NORMS_LAYER_BACK_PARAMETERS {                                      \
        norms_layer_back_rows<T, n>(x, dy, weight, moments, dx, sums, add, rows, channels, pieces, lanes);     \
    }
NORMS_LAYER_BACK(norms_layer_back1, 1)
NORMS_LAYER_BACK(norms_layer_back2, 2)
NORMS_LAYER_BACK(norms_layer_back4, 4)
NORMS_LAYER_BACK(norms_layer_back8, (Piece<T>::LEN == 4 ? 8 : 4))
KERNEL(norms_layer_back1, NORMS_LAYER_BACK_PARAMETERS, NORMS_LAYER_BACK_ARGUMENTS)
KERNEL(norms_layer_back2, NORMS_LAYER_BACK_PARAMETERS, NORMS_LAYER_BACK_ARGUMENTS)
KERNEL(norms_layer_back4, NORMS_LAYER_BACK_PARAMETERS, NORMS_LAYER_BACK_ARGUMENTS)
KERNEL(norms_layer_back8, NORMS_LAYER_BACK_PARAMETERS, NORMS_LAYER_BACK_ARGUMENTS)

// V numbers next to each other: a whole piece, or one.
template <int V, class T> __device__ inline void norms_load(const T* from, float (&to)[V]) {
    if constexpr (V == 1) {
        to[0] = float(*from);
    } else {
        Piece<T> piece = load(from);
        for (int k = 0; k < V; ++k) to[k] = float(piece.at[k]);
    }
}
template <int V, class T> __device__ inline void norms_store(T* to, const float (&from)[V]) {
    if constexpr (V == 1) {
        *to = T(from[0]);
    } else {
        Piece<T> piece;
        for (int k = 0; k < V; ++k) piece.at[k] = T(from[k]);
        store(to, piece);
    }
}

// Numbers behind the channels of an example's positions become 0.
template <class T> __device__ inline void norms_clear(T* example, int positions, int channels, int stride) {
    int pads = stride - channels;
    for (int i = threadIdx.x; i < positions * pads; i += blockDim.x) example[size_t(i / pads) * stride + channels + i % pads] = T(0.f);
}

// A group of an example in each block.
template <class T, int V>
__device__ inline void norms_group_block(const T* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                                         T* __restrict__ y, float* __restrict__ moments, int positions, int channels, int stride, int group,
                                         float eps, double* shared) {
    int groups = channels / group, first = int(blockIdx.y) * group, units = group / V;
    size_t example = size_t(blockIdx.x) * positions * stride;
    float pivot = float(x[example + first]), sum = 0.f, squares = 0.f, value[V];
#pragma unroll 4
    for (int i = threadIdx.x; i < positions * units; i += blockDim.x) {
        norms_load<V>(x + example + size_t(i / units) * stride + first + i % units * V, value);
        for (int k = 0; k < V; ++k) {
            float d = value[k] - pivot;
            sum += d;
            squares = fmaf(d, d, squares);
        }
    }
    double all = sum, of_squares = squares, count = double(positions) * group;
    norms_block_sums(all, of_squares, shared);
    double shift = all / count, var = of_squares / count - shift * shift;
    float mean = float(pivot + shift), inverse = float(1. / sqrt((var < 0. ? 0. : var) + double(eps)));
    for (int i = threadIdx.x; i < positions * units; i += blockDim.x) {
        int channel = first + i % units * V;
        size_t at = example + size_t(i / units) * stride + channel;
        norms_load<V>(x + at, value);
        for (int k = 0; k < V; ++k) value[k] = fmaf((value[k] - mean) * inverse, weight[channel + k], bias[channel + k]);
        norms_store<V>(y + at, value);
    }
    if (threadIdx.x == 0) {
        size_t at = 2 * (size_t(blockIdx.x) * groups + blockIdx.y);
        moments[at] = mean;
        moments[at + 1] = inverse;
    }
    if (V == 1 && int(blockIdx.y) == groups - 1) norms_clear(y + example, positions, channels, stride);
}
template <class T>
__device__ void norms_group(const T* x, const float* weight, const float* bias, T* y, float* moments, int positions, int channels, int stride,
                            int group, float eps) {
    SHARED(double, shared, 64);
    if (group % Piece<T>::LEN) norms_group_block<T, 1>(x, weight, bias, y, moments, positions, channels, stride, group, eps, shared);
    else norms_group_block<T, Piece<T>::LEN>(x, weight, bias, y, moments, positions, channels, stride, group, eps, shared);
}
KERNEL(norms_group, (const T* x, const float* weight, const float* bias, T* y, float* moments, int positions, int channels, int stride, int group, float eps),
       (x, weight, bias, y, moments, positions, channels, stride, group, eps))

template <class T, int V>
__device__ inline void norms_group_back_block(const T* __restrict__ x, const T* __restrict__ dy, const float* __restrict__ weight,
                                              const float* __restrict__ moments, T* __restrict__ dx, int add, int positions, int channels,
                                              int stride, int group, double* shared) {
    int groups = channels / group, first = int(blockIdx.y) * group, units = group / V;
    size_t example = size_t(blockIdx.x) * positions * stride, moment = 2 * (size_t(blockIdx.x) * groups + blockIdx.y);
    float mean = moments[moment], inverse = moments[moment + 1], sum = 0.f, product = 0.f, of_x[V], of_y[V], old[V];
#pragma unroll 4
    for (int i = threadIdx.x; i < positions * units; i += blockDim.x) {
        int channel = first + i % units * V;
        size_t at = example + size_t(i / units) * stride + channel;
        norms_load<V>(x + at, of_x);
        norms_load<V>(dy + at, of_y);
        for (int k = 0; k < V; ++k) {
            float weighted = of_y[k] * weight[channel + k];
            sum += weighted;
            product = fmaf(weighted, (of_x[k] - mean) * inverse, product);
        }
    }
    double all = sum, of_product = product, count = double(positions) * group;
    norms_block_sums(all, of_product, shared);
    sum = float(all / count);
    product = float(of_product / count);
    for (int i = threadIdx.x; i < positions * units; i += blockDim.x) {
        int channel = first + i % units * V;
        size_t at = example + size_t(i / units) * stride + channel;
        norms_load<V>(x + at, of_x);
        norms_load<V>(dy + at, of_y);
        if (add) norms_load<V>(dx + at, old);
        for (int k = 0; k < V; ++k) {
            float value = inverse * (of_y[k] * weight[channel + k] - sum - (of_x[k] - mean) * inverse * product);
            of_x[k] = add ? old[k] + value : value;
        }
        norms_store<V>(dx + at, of_x);
    }
    if (V == 1 && !add && int(blockIdx.y) == groups - 1) norms_clear(dx + example, positions, channels, stride);
}
template <class T>
__device__ void norms_group_back(const T* x, const T* dy, const float* weight, const float* moments, T* dx, int add, int positions, int channels,
                                 int stride, int group) {
    SHARED(double, shared, 64);
    if (group % Piece<T>::LEN) norms_group_back_block<T, 1>(x, dy, weight, moments, dx, add, positions, channels, stride, group, shared);
    else norms_group_back_block<T, Piece<T>::LEN>(x, dy, weight, moments, dx, add, positions, channels, stride, group, shared);
}
KERNEL(norms_group_back,
       (const T* x, const T* dy, const float* weight, const float* moments, T* dx, int add, int positions, int channels, int stride, int group),
       (x, dy, weight, moments, dx, add, positions, channels, stride, group))

// Sums of dy x̂ and of dy over a slice of the rows; `step` numbers lie between the sums of two slices.
template <class T>
__device__ void norms_parameters(const T* __restrict__ x, const T* __restrict__ dy, const float* __restrict__ moments, float* dweight,
                                 float* dbias, int step, int positions, int group, int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(2 * LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    float sums[2 * LEN] = {};
    int groups = channels / group, of_group[LEN], end = min((int(blockIdx.x) + 1) * slice, rows);
    for (int k = 0; k < LEN; ++k) of_group[k] = min((tile.column * LEN + k) / group, groups - 1);
    if (tile.active)
        for (int row = int(blockIdx.x) * slice + tile.lane; row < end; row += tile.lanes) {
            size_t at = (size_t(row) * pieces + tile.column) * LEN;
            Piece<T> of_x = load(x + at), of_y = load(dy + at);
            const float* of_example = moments + 2 * size_t(row / positions) * groups;
            for (int k = 0; k < LEN; ++k) {
                float gradient = of_y.at[k], mean = of_example[2 * of_group[k]], inverse = of_example[2 * of_group[k] + 1];
                sums[k] = fmaf(gradient, (float(of_x.at[k]) - mean) * inverse, sums[k]);
                sums[LEN + k] += gradient;
            }
        }
    reduce_lanes(tile, shared, sums);
    if (!tile.active || tile.lane) return;
    if (dweight) reduce_put<LEN>(dweight + size_t(blockIdx.x) * step, tile.column, channels, sums);
    if (dbias) reduce_put<LEN>(dbias + size_t(blockIdx.x) * step, tile.column, channels, sums + LEN);
}
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS __launch_bounds__(512)
KERNEL(norms_parameters,
       (const T* x, const T* dy, const float* moments, float* dweight, float* dbias, int step, int positions, int group, int rows, int channels,
        int pieces, int width, int slice),
       (x, dy, moments, dweight, dbias, step, positions, group, rows, channels, pieces, width, slice))
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS

// Response normalisation. blockIdx.x is an example and a slice of its positions, of which there are `slices`.
// Sums over each slice: of x x alone, or of x dy and then of dy.
template <class T>
__device__ void norms_response_sums(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ sums, int slices, int positions,
                                    int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(2 * LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    int example = int(blockIdx.x) / slices, first = int(blockIdx.x) % slices * slice, end = min(first + slice, positions);
    float total[2 * LEN] = {};
    if (tile.active)
#pragma unroll 4
        for (int row = first + tile.lane; row < end; row += tile.lanes) {
            size_t at = ((size_t(example) * positions + row) * pieces + tile.column) * LEN;
            Piece<T> of_x = load(x + at), other = dy ? load(dy + at) : of_x;
            for (int k = 0; k < LEN; ++k) {
                total[k] = fmaf(float(of_x.at[k]), float(other.at[k]), total[k]);
                total[LEN + k] += float(other.at[k]);
            }
        }
    reduce_lanes(tile, shared, total);
    if (!tile.active || tile.lane) return;
    float* to = sums + size_t(blockIdx.x) * (dy ? 2 : 1) * channels;
    reduce_put<LEN>(to, tile.column, channels, total);
    if (dy) reduce_put<LEN>(to + channels, tile.column, channels, total + LEN);
}
KERNEL(norms_response_sums,
       (const T* x, const T* dy, float* sums, int slices, int positions, int channels, int pieces, int width, int slice),
       (x, dy, sums, slices, positions, channels, pieces, width, slice))

// For each example (block) its channels' norms, and behind those of all examples the mean of each plus eps.
extern "C" __global__ void norms_responses(const float* sums, float* norms, int slices, int channels, float eps) {
    SHARED(double, shared, 64);
    double total = 0., none = 0.;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        double squares = 0.;
        for (int i = 0; i < slices; ++i) squares += sums[(size_t(blockIdx.x) * slices + i) * channels + c];
        double norm = sqrt(squares);
        norms[size_t(blockIdx.x) * channels + c] = float(norm);
        total += norm;
    }
    norms_block_sums(total, none, shared);
    if (threadIdx.x == 0) norms[size_t(gridDim.x) * channels + blockIdx.x] = float(total / channels + double(eps));
}

// y = x (1 + weight n) + bias.
template <class T>
__device__ void norms_response(const T* __restrict__ x, const float* __restrict__ norms, const float* __restrict__ weight,
                               const float* __restrict__ bias, T* __restrict__ y, int examples, int slices, int positions, int channels,
                               int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(pieces, width);
    if (!tile.active) return;
    int example = int(blockIdx.x) / slices, first = int(blockIdx.x) % slices * slice, end = min(first + slice, positions);
    float factor[LEN], share[LEN], summand[LEN], mean = norms[size_t(examples) * channels + example];
    reduce_channels<LEN>(norms + size_t(example) * channels, tile.column, channels, 0.f, share);
    reduce_channels<LEN>(weight, tile.column, channels, 1.f, factor);
    reduce_channels<LEN>(bias, tile.column, channels, 0.f, summand);
    for (int k = 0; k < LEN; ++k) factor[k] *= share[k] / mean;
    constexpr int MANY = 4;
    size_t image = size_t(example) * positions * pieces * LEN;
    for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
        Piece<T> piece[MANY];
        reduce_load(x + image, tile, row, end, pieces, piece);
#pragma unroll
        for (int i = 0; i < MANY; ++i)
            for (int k = 0; k < LEN; ++k) {
                float value = piece[i].at[k];
                piece[i].at[k] = T(fmaf(factor[k], value, value) + summand[k]);
            }
        reduce_store(y + image, tile, row, end, pieces, piece);
    }
}
KERNEL(norms_response,
       (const T* x, const float* norms, const float* weight, const float* bias, T* y, int examples, int slices, int positions, int channels,
        int pieces, int width, int slice),
       (x, norms, weight, bias, y, examples, slices, positions, channels, pieces, width, slice))

// For each example (block), channel by channel: factor and slope of dx = factor dy + slope x, and its part of dweight and dbias.
extern "C" __global__ void norms_response_slopes(const float* __restrict__ sums, const float* __restrict__ norms, const float* __restrict__ weight,
                                                 float* slopes, float* parts, int slices, int channels) {
    SHARED(double, shared, 64);
    size_t row = size_t(blockIdx.x) * channels;
    double mean = norms[size_t(gridDim.x) * channels + blockIdx.x], all = 0., none = 0.;
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        double product = 0., of_dy = 0., norm = norms[row + c];
        for (int i = 0; i < slices; ++i) {
            const float* of_slice = sums + (size_t(blockIdx.x) * slices + i) * 2 * channels + c;
            product += of_slice[0];
            of_dy += of_slice[channels];
        }
        parts[2 * row + c] = float(product * norm / mean);
        parts[2 * row + channels + c] = float(of_dy);
        // The gradient by the share, until the second loop makes a slope of it.
        slopes[2 * row + channels + c] = float(product * weight[c]);
        all += product * weight[c] * norm;
    }
    norms_block_sums(all, none, shared);
    double common = all / (mean * mean * channels);
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        double norm = norms[row + c], by_share = slopes[2 * row + channels + c];
        slopes[2 * row + c] = float(1. + weight[c] * norm / mean);
        slopes[2 * row + channels + c] = norm > 0. ? float((by_share / mean - common) / norm) : 0.f;
    }
}

template <class T>
__device__ void norms_response_input(const T* __restrict__ x, const T* __restrict__ dy, const float* __restrict__ slopes, T* __restrict__ dx, int add,
                                     int slices, int positions, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(pieces, width);
    if (!tile.active) return;
    int example = int(blockIdx.x) / slices, first = int(blockIdx.x) % slices * slice, end = min(first + slice, positions);
    float factor[LEN], slope[LEN];
    reduce_channels<LEN>(slopes + size_t(example) * 2 * channels, tile.column, channels, 0.f, factor);
    reduce_channels<LEN>(slopes + (size_t(example) * 2 + 1) * channels, tile.column, channels, 0.f, slope);
    constexpr int MANY = 2;
    size_t image = size_t(example) * positions * pieces * LEN;
    for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
        Piece<T> of_x[MANY], of_y[MANY], out[MANY];
        reduce_load(x + image, tile, row, end, pieces, of_x);
        reduce_load(dy + image, tile, row, end, pieces, of_y);
        if (add) reduce_load(dx + image, tile, row, end, pieces, out);
#pragma unroll
        for (int i = 0; i < MANY; ++i)
            for (int k = 0; k < LEN; ++k) {
                float value = fmaf(float(of_y[i].at[k]), factor[k], float(of_x[i].at[k]) * slope[k]);
                out[i].at[k] = T(add ? float(out[i].at[k]) + value : value);
            }
        reduce_store(dx + image, tile, row, end, pieces, out);
    }
}
KERNEL(norms_response_input,
       (const T* x, const T* dy, const float* slopes, T* dx, int add, int slices, int positions, int channels, int pieces, int width, int slice),
       (x, dy, slopes, dx, add, slices, positions, channels, pieces, width, slice))
