// Normalisation of each channel over all rows. Tiles and slices are those of reduce.cu.

// Mean and sum of squared deviations of the rows [first, end) of the tile's columns, in lane 0. The sums are of differences to the
// first row, so that values far from 0 keep their digits.
template <class T>
__device__ inline void batch_norm_moments(const ReduceTile& tile, const T* __restrict__ x, int first, int end, int pieces, float* shared,
                                          float (&mean)[Piece<T>::LEN], float (&squares)[Piece<T>::LEN]) {
    constexpr int LEN = Piece<T>::LEN;
    float sums[2 * LEN] = {}, pivot[LEN] = {};
    if (tile.active) {
        Piece<T> top = load(x + (size_t(first) * pieces + tile.column) * LEN);
        for (int k = 0; k < LEN; ++k) pivot[k] = top.at[k];
#pragma unroll 4
        for (int row = first + tile.lane; row < end; row += tile.lanes) {
            Piece<T> piece = load(x + (size_t(row) * pieces + tile.column) * LEN);
            for (int k = 0; k < LEN; ++k) {
                float d = float(piece.at[k]) - pivot[k];
                sums[k] += d;
                sums[LEN + k] = fmaf(d, d, sums[LEN + k]);
            }
        }
    }
    reduce_lanes(tile, shared, sums);
    for (int k = 0; k < LEN; ++k) {
        float shift = sums[k] / float(end - first), rest = sums[LEN + k] - sums[k] * shift;
        mean[k] = pivot[k] + shift;
        squares[k] = rest < 0.f ? 0.f : rest;
    }
}

// Places of what a batch's statistics become, and how.
struct BatchNormStatistics {
    float *mean, *inverse_std, *running_mean, *running_var;
    float share, eps;
    int rows;
};

__device__ inline void batch_norm_set(const BatchNormStatistics& s, int channel, double mean, double squares) {
    double var = squares / s.rows, unbiased = squares / (s.rows > 1 ? s.rows - 1 : 1);
    s.mean[channel] = float(mean);
    s.inverse_std[channel] = float(1. / sqrt(var + double(s.eps)));
    double share = s.share;
    s.running_mean[channel] = float((1. - share) * s.running_mean[channel] + share * mean);
    s.running_var[channel] = float((1. - share) * s.running_var[channel] + share * unbiased);
}

// What a column's values become: (x - mean) factor + bias.
template <int LEN> struct BatchNormLine {
    float mean[LEN], factor[LEN], bias[LEN];
    __device__ float at(float x, int k) const { return fmaf(x - mean[k], factor[k], bias[k]); }
};

template <int LEN>
__device__ inline void batch_norm_line(BatchNormLine<LEN>& line, const float* mean, const float* inverse_std, const float* weight,
                                       const float* bias, int column, int channels) {
    float scale[LEN];
    reduce_channels<LEN>(mean, column, channels, 0.f, line.mean);
    reduce_channels<LEN>(inverse_std, column, channels, 0.f, line.factor);
    reduce_channels<LEN>(weight, column, channels, 1.f, scale);
    reduce_channels<LEN>(bias, column, channels, 0.f, line.bias);
    for (int k = 0; k < LEN; ++k) line.factor[k] *= scale[k];
}

// Writes the rows [first, end) of y.
template <class T>
__device__ inline void batch_norm_write(const ReduceTile& tile, const BatchNormLine<Piece<T>::LEN>& line, const T* __restrict__ x,
                                        const T* __restrict__ residual, T* __restrict__ y, bool relu, int first, int end, int pieces) {
    constexpr int MANY = 4;
    for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
        Piece<T> of_x[MANY], rest[MANY];
        reduce_load(x, tile, row, end, pieces, of_x);
        if (residual) reduce_load(residual, tile, row, end, pieces, rest);
#pragma unroll
        for (int i = 0; i < MANY; ++i)
            for (int k = 0; k < Piece<T>::LEN; ++k) {
                float value = line.at(of_x[i].at[k], k);
                if (residual) value += float(rest[i].at[k]);
                of_x[i].at[k] = T(relu && value < 0.f ? 0.f : value);
            }
        reduce_store(y, tile, row, end, pieces, of_x);
    }
}

// Moments of each slice: its means, then its sums of squared deviations.
template <class T>
__device__ void batch_norm_measure(const T* x, float* moments, int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(2 * LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    float mean[LEN], squares[LEN];
    int first = int(blockIdx.x) * slice;
    batch_norm_moments(tile, x, first, min(first + slice, rows), pieces, shared, mean, squares);
    if (!tile.active || tile.lane) return;
    float* to = moments + size_t(blockIdx.x) * 2 * channels;
    reduce_put<LEN>(to, tile.column, channels, mean);
    reduce_put<LEN>(to + channels, tile.column, channels, squares);
}
KERNEL(batch_norm_measure, (const T* x, float* moments, int rows, int channels, int pieces, int width, int slice),
       (x, moments, rows, channels, pieces, width, slice))

// The statistics of all rows from the moments of the slices.
extern "C" __global__ void batch_norm_combine(const float* __restrict__ moments, float* mean, float* inverse_std, float* running_mean,
                                              float* running_var, const float* scalars, int rows, int channels, int slice, float eps) {
    SHARED(double, shared, REDUCE_NUMBERS * REDUCE_LANES);
    int channel = int(blockIdx.x) * REDUCE_NUMBERS + int(threadIdx.x) % REDUCE_NUMBERS, lane = int(threadIdx.x) / REDUCE_NUMBERS;
    int slices = (rows + slice - 1) / slice;
    double pivot = 0., sum = 0., squares = 0.;
    if (channel < channels) {
        pivot = moments[channel];
#pragma unroll 4
        for (int at = lane; at < slices; at += REDUCE_LANES) {
            const float* of_slice = moments + size_t(at) * 2 * channels + channel;
            double count = min(slice, rows - at * slice), d = of_slice[0] - pivot;
            sum += count * d;
            squares += of_slice[channels] + count * d * d;
        }
    }
    sum = reduce_finish_lanes(shared, sum);
    squares = reduce_finish_lanes(shared, squares);
    if (lane || channel >= channels) return;
    double shift = sum / rows, rest = squares - sum * shift;
    BatchNormStatistics s{mean, inverse_std, running_mean, running_var, scalars[6], eps, rows};
    batch_norm_set(s, channel, pivot + shift, rest < 0. ? 0. : rest);
}

// Statistics of all rows in one launch, where each column's block takes all of them; and y, if wanted.
template <class T>
__device__ void batch_norm_whole(const T* x, const T* residual, T* y, float* mean, float* inverse_std, float* running_mean,
                                 float* running_var, const float* scalars, const float* weight, const float* bias, int relu, float eps,
                                 int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(2 * LEN));
    SHARED(float, statistics, 2 * 32 * LEN);
    ReduceTile tile = reduce_tile(pieces, width);
    float of_mean[LEN], squares[LEN];
    batch_norm_moments(tile, x, 0, rows, pieces, shared, of_mean, squares);
    int local = int(threadIdx.x) % width * LEN;
    if (tile.active && tile.lane == 0) {
        BatchNormStatistics s{mean, inverse_std, running_mean, running_var, scalars[6], eps, rows};
        for (int k = 0; k < LEN; ++k) {
            int channel = tile.column * LEN + k;
            statistics[local + k] = of_mean[k];
            statistics[32 * LEN + local + k] = 0.f;
            if (channel >= channels) continue;
            batch_norm_set(s, channel, of_mean[k], squares[k]);
            statistics[32 * LEN + local + k] = inverse_std[channel];
        }
    }
    SYNC();
    if (!y || !tile.active) return;
    BatchNormLine<LEN> line;
    float scale[LEN];
    reduce_channels<LEN>(weight, tile.column, channels, 1.f, scale);
    reduce_channels<LEN>(bias, tile.column, channels, 0.f, line.bias);
    for (int k = 0; k < LEN; ++k) {
        line.mean[k] = statistics[local + k];
        line.factor[k] = statistics[32 * LEN + local + k] * scale[k];
    }
    batch_norm_write(tile, line, x, residual, y, relu, 0, rows, pieces);
}
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS __launch_bounds__(512)
KERNEL(batch_norm_whole,
       (const T* x, const T* residual, T* y, float* mean, float* inverse_std, float* running_mean, float* running_var, const float* scalars,
        const float* weight, const float* bias, int relu, float eps, int rows, int channels, int pieces, int width, int slice),
       (x, residual, y, mean, inverse_std, running_mean, running_var, scalars, weight, bias, relu, eps, rows, channels, pieces, width, slice))
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS

extern "C" __global__ void batch_norm_fixed(const float* running_mean, const float* running_var, float* mean, float* inverse_std,
                                            int channels, float eps) {
    int channel = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (channel >= channels) return;
    mean[channel] = running_mean[channel];
    inverse_std[channel] = float(1. / sqrt(double(running_var[channel]) + double(eps)));
}

template <class T>
__device__ void batch_norm_apply(const T* x, const T* residual, T* y, const float* mean, const float* inverse_std, const float* weight,
                                 const float* bias, int relu, int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(pieces, width);
    if (!tile.active) return;
    BatchNormLine<LEN> line;
    batch_norm_line(line, mean, inverse_std, weight, bias, tile.column, channels);
    int first = int(blockIdx.x) * slice, end = min(first + slice, rows);
    if (residual) batch_norm_write(tile, line, x, residual, y, relu, first, end, pieces);
    else batch_norm_write(tile, line, x, (const T*)nullptr, y, relu, first, end, pieces);
}
KERNEL(batch_norm_apply,
       (const T* x, const T* residual, T* y, const float* mean, const float* inverse_std, const float* weight, const float* bias, int relu,
        int rows, int channels, int pieces, int width, int slice),
       (x, residual, y, mean, inverse_std, weight, bias, relu, rows, channels, pieces, width, slice))

// How a gradient passes ReLU: all of it, where y is above 0, or where y would be if it were computed again.
enum { BATCH_NORM_ALL, BATCH_NORM_BY_Y, BATCH_NORM_AGAIN };

// What the way back reads.
template <class T> struct BatchNormBack {
    const T *x, *y, *dy;
    const float *mean, *inverse_std, *weight, *bias;
    int rows, channels, pieces;
};

// dy behind ReLU.
template <int MASK, class T>
__device__ inline float batch_norm_masked(const BatchNormLine<Piece<T>::LEN>& line, const Piece<T>& x, const Piece<T>& y, const Piece<T>& dy,
                                          int k) {
    float gradient = dy.at[k];
    if (MASK == BATCH_NORM_BY_Y) return float(y.at[k]) > 0.f ? gradient : 0.f;
    if (MASK == BATCH_NORM_AGAIN) return line.at(x.at[k], k) > 0.f ? gradient : 0.f;
    return gradient;
}

// Sums of dy (x - mean), then of dy, over the rows [first, end), in lane 0; writes the masked dy if wanted.
template <int MASK, class T>
__device__ inline void batch_norm_sums(const ReduceTile& tile, const BatchNormLine<Piece<T>::LEN>& line, const T* __restrict__ x,
                                       const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ masked, int first, int end, int pieces,
                                       float* shared, float (&sums)[2 * Piece<T>::LEN]) {
    constexpr int LEN = Piece<T>::LEN;
    for (int k = 0; k < 2 * LEN; ++k) sums[k] = 0.f;
    if (tile.active) {
        // Rows behind the end have gradients of 0.
        constexpr int MANY = 4;
        for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
            Piece<T> of_x[MANY] = {}, of_y[MANY] = {}, of_dy[MANY] = {};
            reduce_load(x, tile, row, end, pieces, of_x);
            reduce_load(dy, tile, row, end, pieces, of_dy);
            if (MASK == BATCH_NORM_BY_Y) reduce_load(y, tile, row, end, pieces, of_y);
#pragma unroll
            for (int i = 0; i < MANY; ++i)
                for (int k = 0; k < LEN; ++k) {
                    float gradient = batch_norm_masked<MASK, T>(line, of_x[i], of_y[i], of_dy[i], k);
                    sums[k] = fmaf(gradient, float(of_x[i].at[k]) - line.mean[k], sums[k]);
                    sums[LEN + k] += gradient;
                    of_dy[i].at[k] = T(gradient);
                }
            if (masked) reduce_store(masked, tile, row, end, pieces, of_dy);
        }
    }
    reduce_lanes(tile, shared, sums);
}

// Where the operands' gradients go, and whether they are added to what is there.
template <class T> struct BatchNormGradients {
    T *dx, *dresidual;
    bool add, add_residual;
};

// Writes the operands' gradients in the rows [first, end): dx = slope (dy - level + tilt (x - mean)).
template <int MASK, class T>
__device__ inline void batch_norm_spread(const ReduceTile& tile, const BatchNormLine<Piece<T>::LEN>& line, const float (&slope)[Piece<T>::LEN],
                                         const float (&tilt)[Piece<T>::LEN], const float (&level)[Piece<T>::LEN], const T* __restrict__ x,
                                         const T* __restrict__ y, const T* __restrict__ dy, const BatchNormGradients<T>& to, int first,
                                         int end, int pieces) {
    constexpr int MANY = 2;
    for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
        Piece<T> of_x[MANY], of_y[MANY], of_dy[MANY], out[MANY], rest[MANY];
        reduce_load(x, tile, row, end, pieces, of_x);
        reduce_load(dy, tile, row, end, pieces, of_dy);
        if (MASK == BATCH_NORM_BY_Y) reduce_load(y, tile, row, end, pieces, of_y);
        if (to.add) reduce_load(to.dx, tile, row, end, pieces, out);
        if (to.add_residual) reduce_load(to.dresidual, tile, row, end, pieces, rest);
#pragma unroll
        for (int i = 0; i < MANY; ++i)
            for (int k = 0; k < Piece<T>::LEN; ++k) {
                float gradient = batch_norm_masked<MASK, T>(line, of_x[i], of_y[i], of_dy[i], k);
                float value = slope[k] * fmaf(tilt[k], float(of_x[i].at[k]) - line.mean[k], gradient - level[k]);
                out[i].at[k] = T(to.add ? float(out[i].at[k]) + value : value);
                rest[i].at[k] = T(to.add_residual ? float(rest[i].at[k]) + gradient : gradient);
            }
        if (to.dx) reduce_store(to.dx, tile, row, end, pieces, out);
        if (to.dresidual) reduce_store(to.dresidual, tile, row, end, pieces, rest);
    }
}

// Slope, tilt and level of `batch_norm_spread` from the sums of dy x̂ and of dy.
template <int LEN>
__device__ inline void batch_norm_coefficients(const float* inverse_std, const float* weight, const float (&dweight)[LEN],
                                               const float (&dbias)[LEN], int rows, int column, int channels, float (&slope)[LEN],
                                               float (&tilt)[LEN], float (&level)[LEN]) {
    float inverse[LEN];
    reduce_channels<LEN>(inverse_std, column, channels, 0.f, inverse);
    reduce_channels<LEN>(weight, column, channels, 1.f, slope);
    for (int k = 0; k < LEN; ++k) {
        slope[k] *= inverse[k];
        tilt[k] = -inverse[k] * (dweight[k] / rows);
        level[k] = dbias[k] / rows;
    }
}

// First pass: for each slice the sums of dy x̂, then of dy.
template <int MASK, class T>
__device__ inline void batch_norm_partial(const BatchNormBack<T>& b, T* masked, float* sums, int width, int slice, float* shared) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(b.pieces, width);
    BatchNormLine<LEN> line = {};
    float of_slice[2 * LEN], inverse[LEN] = {};
    if (tile.active) {
        batch_norm_line(line, b.mean, b.inverse_std, b.weight, b.bias, tile.column, b.channels);
        reduce_channels<LEN>(b.inverse_std, tile.column, b.channels, 0.f, inverse);
    }
    int first = int(blockIdx.x) * slice, end = min(first + slice, b.rows);
    if (masked) batch_norm_sums<MASK>(tile, line, b.x, b.y, b.dy, masked, first, end, b.pieces, shared, of_slice);
    else batch_norm_sums<MASK>(tile, line, b.x, b.y, b.dy, (T*)nullptr, first, end, b.pieces, shared, of_slice);
    if (!tile.active || tile.lane) return;
    for (int k = 0; k < LEN; ++k) of_slice[k] *= inverse[k];
    float* to = sums + size_t(blockIdx.x) * 2 * b.channels;
    reduce_put<LEN>(to, tile.column, b.channels, of_slice);
    reduce_put<LEN>(to + b.channels, tile.column, b.channels, of_slice + LEN);
}

template <class T>
__device__ void batch_norm_sums_of(const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight,
                                   const float* bias, T* masked, float* sums, int mask, int rows, int channels, int pieces, int width,
                                   int slice) {
    SHARED(float, shared, REDUCE_SHARED(2 * Piece<T>::LEN));
    BatchNormBack<T> b{x, y, dy, mean, inverse_std, weight, bias, rows, channels, pieces};
    if (mask == BATCH_NORM_ALL) batch_norm_partial<BATCH_NORM_ALL>(b, masked, sums, width, slice, shared);
    else if (mask == BATCH_NORM_BY_Y) batch_norm_partial<BATCH_NORM_BY_Y>(b, masked, sums, width, slice, shared);
    else batch_norm_partial<BATCH_NORM_AGAIN>(b, masked, sums, width, slice, shared);
}
KERNEL(batch_norm_sums_of,
       (const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight, const float* bias, T* masked,
        float* sums, int mask, int rows, int channels, int pieces, int width, int slice),
       (x, y, dy, mean, inverse_std, weight, bias, masked, sums, mask, rows, channels, pieces, width, slice))

// Second pass: the operands' gradients from the sums.
template <int MASK, class T>
__device__ inline void batch_norm_second(const BatchNormBack<T>& b, const float* dweight, const float* dbias, const BatchNormGradients<T>& to,
                                         int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(b.pieces, width);
    if (!tile.active) return;
    BatchNormLine<LEN> line;
    batch_norm_line(line, b.mean, b.inverse_std, b.weight, b.bias, tile.column, b.channels);
    float of_product[LEN], of_dy[LEN], slope[LEN], tilt[LEN], level[LEN];
    reduce_channels<LEN>(dweight, tile.column, b.channels, 0.f, of_product);
    reduce_channels<LEN>(dbias, tile.column, b.channels, 0.f, of_dy);
    batch_norm_coefficients<LEN>(b.inverse_std, b.weight, of_product, of_dy, b.rows, tile.column, b.channels, slope, tilt, level);
    int first = int(blockIdx.x) * slice, end = min(first + slice, b.rows);
    batch_norm_spread<MASK>(tile, line, slope, tilt, level, b.x, b.y, b.dy, to, first, end, b.pieces);
}

template <class T>
__device__ void batch_norm_input(const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight,
                                 const float* bias, const float* dweight, const float* dbias, T* dx, T* dresidual, int add, int add_residual,
                                 int mask, int rows, int channels, int pieces, int width, int slice) {
    BatchNormBack<T> b{x, y, dy, mean, inverse_std, weight, bias, rows, channels, pieces};
    BatchNormGradients<T> to{dx, dresidual, add != 0, add_residual != 0};
    if (mask == BATCH_NORM_ALL) batch_norm_second<BATCH_NORM_ALL>(b, dweight, dbias, to, width, slice);
    else if (mask == BATCH_NORM_BY_Y) batch_norm_second<BATCH_NORM_BY_Y>(b, dweight, dbias, to, width, slice);
    else batch_norm_second<BATCH_NORM_AGAIN>(b, dweight, dbias, to, width, slice);
}
KERNEL(batch_norm_input,
       (const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight, const float* bias,
        const float* dweight, const float* dbias, T* dx, T* dresidual, int add, int add_residual, int mask, int rows, int channels, int pieces,
        int width, int slice),
       (x, y, dy, mean, inverse_std, weight, bias, dweight, dbias, dx, dresidual, add, add_residual, mask, rows, channels, pieces, width, slice))

// Both passes in one launch, where each column's block takes all rows.
template <int MASK, class T>
__device__ inline void batch_norm_both(const BatchNormBack<T>& b, float* dweight, float* dbias, const BatchNormGradients<T>& to, int width,
                                       float* shared, float* all) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(b.pieces, width);
    BatchNormLine<LEN> line = {};
    float sums[2 * LEN], inverse[LEN] = {};
    if (tile.active) {
        batch_norm_line(line, b.mean, b.inverse_std, b.weight, b.bias, tile.column, b.channels);
        reduce_channels<LEN>(b.inverse_std, tile.column, b.channels, 0.f, inverse);
    }
    batch_norm_sums<MASK>(tile, line, b.x, b.y, b.dy, (T*)nullptr, 0, b.rows, b.pieces, shared, sums);
    int local = int(threadIdx.x) % width * 2 * LEN;
    if (tile.active && tile.lane == 0) {
        for (int k = 0; k < LEN; ++k) sums[k] *= inverse[k];
        for (int k = 0; k < 2 * LEN; ++k) all[local + k] = sums[k];
        if (dweight) reduce_put<LEN>(dweight, tile.column, b.channels, sums);
        if (dbias) reduce_put<LEN>(dbias, tile.column, b.channels, sums + LEN);
    }
    SYNC();
    if (!tile.active || !(to.dx || to.dresidual)) return;
    float of_product[LEN], of_dy[LEN], slope[LEN], tilt[LEN], level[LEN];
    for (int k = 0; k < LEN; ++k) {
        of_product[k] = all[local + k];
        of_dy[k] = all[local + LEN + k];
    }
    batch_norm_coefficients<LEN>(b.inverse_std, b.weight, of_product, of_dy, b.rows, tile.column, b.channels, slope, tilt, level);
    batch_norm_spread<MASK>(tile, line, slope, tilt, level, b.x, b.y, b.dy, to, 0, b.rows, b.pieces);
}

template <class T>
__device__ void batch_norm_back(const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight,
                                const float* bias, float* dweight, float* dbias, T* dx, T* dresidual, int add, int add_residual, int mask,
                                int rows, int channels, int pieces, int width, int slice) {
    SHARED(float, shared, REDUCE_SHARED(2 * Piece<T>::LEN));
    SHARED(float, all, 32 * 2 * Piece<T>::LEN);
    BatchNormBack<T> b{x, y, dy, mean, inverse_std, weight, bias, rows, channels, pieces};
    BatchNormGradients<T> to{dx, dresidual, add != 0, add_residual != 0};
    if (mask == BATCH_NORM_ALL) batch_norm_both<BATCH_NORM_ALL>(b, dweight, dbias, to, width, shared, all);
    else if (mask == BATCH_NORM_BY_Y) batch_norm_both<BATCH_NORM_BY_Y>(b, dweight, dbias, to, width, shared, all);
    else batch_norm_both<BATCH_NORM_AGAIN>(b, dweight, dbias, to, width, shared, all);
}
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS __launch_bounds__(512)
KERNEL(batch_norm_back,
       (const T* x, const T* y, const T* dy, const float* mean, const float* inverse_std, const float* weight, const float* bias,
        float* dweight, float* dbias, T* dx, T* dresidual, int add, int add_residual, int mask, int rows, int channels, int pieces,
        int width, int slice),
       (x, y, dy, mean, inverse_std, weight, bias, dweight, dbias, dx, dresidual, add, add_residual, mask, rows, channels, pieces, width, slice))
#undef KERNEL_BOUNDS
#define KERNEL_BOUNDS
