// Maxima and weighted sums over positions of an image. Which positions of the source each position of the target is made of is in
// tables: those of target t are sources[starts[t]] up to, without it, sources[starts[t + 1]]. A thread has a piece of a row.

struct PoolsItem {
    int row, column, example, target;
    bool active;
};

__device__ inline PoolsItem pools_item(int rows, int pieces, int targets) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    int row = int(index / pieces), column = int(index % pieces);
    return PoolsItem{row, column, row / targets, row % targets, index < size_t(rows) * pieces};
}

// Padding never counts; the first of equal maxima wins, and NaN.
template <class T>
__device__ void pools_max(const T* __restrict__ x, T* __restrict__ y, int* __restrict__ argmax, const int* __restrict__ starts,
                          const int* __restrict__ sources, int rows, int pieces, int inputs, int outputs) {
    constexpr int LEN = Piece<T>::LEN;
    PoolsItem item = pools_item(rows, pieces, outputs);
    if (!item.active) return;
    int first = starts[item.target], end = starts[item.target + 1], index[LEN];
    const T* image = x + (size_t(item.example) * inputs * pieces + item.column) * LEN;
    float most[LEN];
    for (int k = 0; k < LEN; ++k) {
        most[k] = first < end ? __int_as_float(int(0xff800000u)) : 0.f;
        index[k] = first < end ? sources[first] : -1;
    }
#pragma unroll 4
    for (int i = first; i < end; ++i) {
        int source = sources[i];
        Piece<T> piece = load(image + size_t(source) * pieces * LEN);
        for (int k = 0; k < LEN; ++k) {
            float value = piece.at[k];
            bool wins = value > most[k] || value != value;
            most[k] = wins ? value : most[k];
            index[k] = wins ? source : index[k];
        }
    }
    size_t at = (size_t(item.row) * pieces + item.column) * LEN;
    Piece<T> out;
    for (int k = 0; k < LEN; ++k) out.at[k] = T(most[k]);
    store(y + at, out);
    for (int k = 0; k < LEN; k += 4) {
        Piece<int> four;
        for (int i = 0; i < 4; ++i) four.at[i] = index[k + i];
        store(argmax + at + k, four);
    }
}
KERNEL(pools_max, (const T* x, T* y, int* argmax, const int* starts, const int* sources, int rows, int pieces, int inputs, int outputs),
       (x, y, argmax, starts, sources, rows, pieces, inputs, outputs))

// The sources of a target are here the outputs that cover a position of the input.
template <class T>
__device__ void pools_max_back(const int* __restrict__ argmax, const T* __restrict__ dy, T* __restrict__ dx, const int* __restrict__ starts,
                               const int* __restrict__ sources, int add, int rows, int pieces, int inputs, int outputs) {
    constexpr int LEN = Piece<T>::LEN;
    PoolsItem item = pools_item(rows, pieces, inputs);
    if (!item.active) return;
    size_t image = (size_t(item.example) * outputs * pieces + item.column) * LEN, at = (size_t(item.row) * pieces + item.column) * LEN;
    float sum[LEN] = {};
#pragma unroll 2
    for (int i = starts[item.target]; i < starts[item.target + 1]; ++i) {
        size_t from = image + size_t(sources[i]) * pieces * LEN;
        Piece<T> piece = load(dy + from);
        for (int k = 0; k < LEN; k += 4) {
            Piece<int> index = load(argmax + from + k);
            for (int j = 0; j < 4; ++j) sum[k + j] += index.at[j] == item.target ? float(piece.at[k + j]) : 0.f;
        }
    }
    Piece<T> out;
    if (add) out = load(dx + at);
    for (int k = 0; k < LEN; ++k) out.at[k] = T(add ? float(out.at[k]) + sum[k] : sum[k]);
    store(dx + at, out);
}
KERNEL(pools_max_back,
       (const int* argmax, const T* dy, T* dx, const int* starts, const int* sources, int add, int rows, int pieces, int inputs, int outputs),
       (argmax, dy, dx, starts, sources, add, rows, pieces, inputs, outputs))

// Sums of the sources by their shares.
template <class T>
__device__ void pools_sum(const T* __restrict__ from, T* __restrict__ to, const int* __restrict__ starts, const int* __restrict__ sources,
                          const float* __restrict__ shares, int add, int rows, int pieces, int inputs, int outputs) {
    constexpr int LEN = Piece<T>::LEN;
    PoolsItem item = pools_item(rows, pieces, outputs);
    if (!item.active) return;
    const T* image = from + (size_t(item.example) * inputs * pieces + item.column) * LEN;
    size_t at = (size_t(item.row) * pieces + item.column) * LEN;
    float sum[LEN] = {};
    int end = starts[item.target + 1];
#pragma unroll 4
    for (int i = starts[item.target]; i < end; ++i) {
        Piece<T> piece = load(image + size_t(sources[i]) * pieces * LEN);
        float share = shares[i];
        for (int k = 0; k < LEN; ++k) sum[k] = fmaf(float(piece.at[k]), share, sum[k]);
    }
    Piece<T> out;
    if (add) out = load(to + at);
    for (int k = 0; k < LEN; ++k) out.at[k] = T(add ? float(out.at[k]) + sum[k] : sum[k]);
    store(to + at, out);
}
KERNEL(pools_sum,
       (const T* from, T* to, const int* starts, const int* sources, const float* shares, int add, int rows, int pieces, int inputs, int outputs),
       (from, to, starts, sources, shares, add, rows, pieces, inputs, outputs))

// One output of all positions; blockIdx.x is an example.
template <class T>
__device__ void pools_mean_all(const T* __restrict__ x, T* __restrict__ y, float share, int positions, int pieces, int width) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    float sum[LEN] = {};
    if (tile.active)
#pragma unroll 4
        for (int position = tile.lane; position < positions; position += tile.lanes) {
            Piece<T> piece = load(x + ((size_t(blockIdx.x) * positions + position) * pieces + tile.column) * LEN);
            for (int k = 0; k < LEN; ++k) sum[k] += float(piece.at[k]);
        }
    reduce_lanes(tile, shared, sum);
    if (!tile.active || tile.lane) return;
    Piece<T> out;
    for (int k = 0; k < LEN; ++k) out.at[k] = T(sum[k] * share);
    store(y + (size_t(blockIdx.x) * pieces + tile.column) * LEN, out);
}
KERNEL(pools_mean_all, (const T* x, T* y, float share, int positions, int pieces, int width), (x, y, share, positions, pieces, width))

// Whether the second of two maxima wins, as if their positions came one after another: the last NaN, else the first of the largest.
__device__ inline bool pools_wins(float most, int index, float other, int other_index) {
    if (other_index < 0) return false;
    if (index < 0) return true;
    bool nan = most != most, other_nan = other != other;
    if (nan || other_nan) return other_nan && (!nan || other_index > index);
    return other > most || (other == most && other_index < index);
}

template <class T>
__device__ void pools_max_all(const T* __restrict__ x, T* __restrict__ y, int* __restrict__ argmax, int positions, int pieces, int width) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, values, REDUCE_SHARED(LEN));
    SHARED(int, indices, REDUCE_SHARED(LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    float most[LEN];
    int index[LEN];
    for (int k = 0; k < LEN; ++k) {
        most[k] = __int_as_float(int(0xff800000u));
        index[k] = tile.active && tile.lane < positions ? tile.lane : -1;
    }
    if (tile.active)
#pragma unroll 4
        for (int position = tile.lane; position < positions; position += tile.lanes) {
            Piece<T> piece = load(x + ((size_t(blockIdx.x) * positions + position) * pieces + tile.column) * LEN);
            for (int k = 0; k < LEN; ++k) {
                float value = piece.at[k];
                bool wins = value > most[k] || value != value;
                most[k] = wins ? value : most[k];
                index[k] = wins ? position : index[k];
            }
        }
    for (int lanes = tile.lanes; lanes > 1;) {
        int half = (lanes + 1) / 2, at = int(threadIdx.x) - half * width;
        SYNC();
        if (tile.lane >= half && tile.lane < lanes)
            for (int k = 0; k < LEN; ++k) {
                values[k * 256 + at] = most[k];
                indices[k * 256 + at] = index[k];
            }
        SYNC();
        if (tile.lane + half < lanes)
            for (int k = 0; k < LEN; ++k) {
                float other = values[k * 256 + threadIdx.x];
                int other_index = indices[k * 256 + threadIdx.x];
                bool wins = pools_wins(most[k], index[k], other, other_index);
                most[k] = wins ? other : most[k];
                index[k] = wins ? other_index : index[k];
            }
        lanes = half;
    }
    if (!tile.active || tile.lane) return;
    size_t at = (size_t(blockIdx.x) * pieces + tile.column) * LEN;
    Piece<T> out;
    for (int k = 0; k < LEN; ++k) out.at[k] = T(most[k]);
    store(y + at, out);
    for (int k = 0; k < LEN; ++k) argmax[at + k] = index[k];
}
KERNEL(pools_max_all, (const T* x, T* y, int* argmax, int positions, int pieces, int width), (x, y, argmax, positions, pieces, width))

// The way back from one output to all positions: its gradient times `share`; of a maximum, only where its index is. blockIdx.x is an
// example and a slice of its positions, of which there are `slices`.
template <class T>
__device__ void pools_spread(const int* __restrict__ argmax, const T* __restrict__ dy, T* __restrict__ dx, float share, int add, int slices,
                             int positions, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    ReduceTile tile = reduce_tile(pieces, width);
    if (!tile.active) return;
    int example = int(blockIdx.x) / slices, first = int(blockIdx.x) % slices * slice, end = min(first + slice, positions), index[LEN];
    size_t from = (size_t(example) * pieces + tile.column) * LEN;
    Piece<T> gradient = load(dy + from);
    for (int k = 0; k < LEN; ++k) index[k] = argmax ? argmax[from + k] : 0;
#pragma unroll 4
    for (int position = first + tile.lane; position < end; position += tile.lanes) {
        size_t at = ((size_t(example) * positions + position) * pieces + tile.column) * LEN;
        Piece<T> out;
        if (add) out = load(dx + at);
        for (int k = 0; k < LEN; ++k) {
            float value = argmax && index[k] != position ? 0.f : float(gradient.at[k]) * share;
            out.at[k] = T(add ? float(out.at[k]) + value : value);
        }
        store(dx + at, out);
    }
}
KERNEL(pools_spread, (const int* argmax, const T* dy, T* dx, float share, int add, int slices, int positions, int pieces, int width, int slice),
       (argmax, dy, dx, share, add, slices, positions, pieces, width, slice))
