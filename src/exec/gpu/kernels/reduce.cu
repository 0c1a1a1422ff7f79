// Sums over rows. A block takes `width` columns of pieces (blockIdx.y says which) and a slice of the rows (blockIdx.x); its threads
// are as many rows of that width as fit, the lanes, which share the slice's rows among them.

struct ReduceTile {
    int width, column, lane, lanes;
    bool active;
};

__device__ inline ReduceTile reduce_tile(int pieces, int width) {
    int lane = int(threadIdx.x) / width, lanes = int(blockDim.x) / width;
    int column = int(blockIdx.y) * width + int(threadIdx.x) % width;
    return ReduceTile{width, column, lane, lanes, lane < lanes && column < pieces};
}

// Floats of shared memory for `reduce_lanes` of N numbers in blocks of at most 512 threads.
#define REDUCE_SHARED(N) ((N) * 256)

// Adds up each thread's N numbers over the lanes, as a tree; the sums are in lane 0. All threads of a block call it.
template <int N> __device__ inline void reduce_lanes(const ReduceTile& tile, float* shared, float (&values)[N]) {
    for (int lanes = tile.lanes; lanes > 1;) {
        int half = (lanes + 1) / 2, at = int(threadIdx.x) - half * tile.width;
        SYNC();
        if (tile.lane >= half && tile.lane < lanes)
            for (int k = 0; k < N; ++k) shared[k * 256 + at] = values[k];
        SYNC();
        if (tile.lane + half < lanes)
            for (int k = 0; k < N; ++k) values[k] += shared[k * 256 + threadIdx.x];
        lanes = half;
    }
}

// The numbers of a dense array for a column's channels; those behind the channels are 0. A missing array is `otherwise`.
template <int LEN>
__device__ inline void reduce_channels(const float* from, int column, int channels, float otherwise, float (&to)[LEN]) {
    int first = column * LEN;
    bool whole = first + LEN <= channels && (size_t(from) & 15) == 0;
    if (from && whole) {
        for (int k = 0; k < LEN; k += 4) {
            Piece<float> piece = load(from + first + k);
            for (int i = 0; i < 4; ++i) to[k + i] = piece.at[i];
        }
        return;
    }
    for (int k = 0; k < LEN; ++k) to[k] = first + k < channels ? (from ? from[first + k] : otherwise) : 0.f;
}

// Writes a column's numbers into a dense array.
template <int LEN> __device__ inline void reduce_put(float* to, int column, int channels, const float* from) {
    for (int k = 0; k < LEN; ++k)
        if (column * LEN + k < channels) to[column * LEN + k] = from[k];
}

// Pieces of a tile's column in N rows from `row` on, a lane's next ones, as far as there are rows before `end`. Loops that also write
// load many at once by this, as a compiler does not move loads across writes.
template <int N, class T>
__device__ inline void reduce_load(const T* from, const ReduceTile& tile, int row, int end, int pieces, Piece<T> (&to)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (row + i * tile.lanes < end) to[i] = load(from + (size_t(row + i * tile.lanes) * pieces + tile.column) * Piece<T>::LEN);
}

template <int N, class T>
__device__ inline void reduce_store(T* to, const ReduceTile& tile, int row, int end, int pieces, const Piece<T> (&from)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (row + i * tile.lanes < end) store(to + (size_t(row + i * tile.lanes) * pieces + tile.column) * Piece<T>::LEN, from[i]);
}

enum { REDUCE_PLAIN, REDUCE_PRODUCT, REDUCE_RELU };

// Sums of b, of a b, or of b where a > 0, which is then written to `masked`; one row of `sums` for each slice.
template <class T, int KIND>
__device__ void reduce_rows(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ masked, float* __restrict__ sums,
                            int rows, int channels, int pieces, int width, int slice) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, shared, REDUCE_SHARED(LEN));
    ReduceTile tile = reduce_tile(pieces, width);
    float total[LEN] = {};
    if (tile.active) {
        constexpr int MANY = 4;
        int first = int(blockIdx.x) * slice, end = min(first + slice, rows);
        for (int row = first + tile.lane; row < end; row += MANY * tile.lanes) {
            Piece<T> of_a[MANY] = {}, of_b[MANY] = {};
            reduce_load(b, tile, row, end, pieces, of_b);
            if (KIND != REDUCE_PLAIN) reduce_load(a, tile, row, end, pieces, of_a);
#pragma unroll
            for (int i = 0; i < MANY; ++i)
                for (int k = 0; k < LEN; ++k) {
                    float value = of_b[i].at[k], other = of_a[i].at[k];
                    if (KIND == REDUCE_PRODUCT) value *= other;
                    if (KIND == REDUCE_RELU) {
                        value = other > 0.f ? value : 0.f;
                        of_b[i].at[k] = T(value);
                    }
                    total[k] += value;
                }
            if (KIND == REDUCE_RELU) reduce_store(masked, tile, row, end, pieces, of_b);
        }
    }
    if (!sums) return;
    reduce_lanes(tile, shared, total);
    if (tile.active && tile.lane == 0) reduce_put<LEN>(sums + size_t(blockIdx.x) * channels, tile.column, channels, total);
}

template <class T> __device__ void reduce_sums(const T* b, float* sums, int rows, int channels, int pieces, int width, int slice) {
    reduce_rows<T, REDUCE_PLAIN>(b, b, nullptr, sums, rows, channels, pieces, width, slice);
}
KERNEL(reduce_sums, (const T* b, float* sums, int rows, int channels, int pieces, int width, int slice),
       (b, sums, rows, channels, pieces, width, slice))

template <class T>
__device__ void reduce_products(const T* a, const T* b, float* sums, int rows, int channels, int pieces, int width, int slice) {
    reduce_rows<T, REDUCE_PRODUCT>(a, b, nullptr, sums, rows, channels, pieces, width, slice);
}
KERNEL(reduce_products, (const T* a, const T* b, float* sums, int rows, int channels, int pieces, int width, int slice),
       (a, b, sums, rows, channels, pieces, width, slice))

template <class T> __device__ void reduce_relu(const T* y, T* dy, float* sums, int rows, int channels, int pieces, int width, int slice) {
    reduce_rows<T, REDUCE_RELU>(y, dy, dy, sums, rows, channels, pieces, width, slice);
}
KERNEL(reduce_relu, (const T* y, T* dy, float* sums, int rows, int channels, int pieces, int width, int slice),
       (y, dy, sums, rows, channels, pieces, width, slice))

// How the blocks of a finish are laid out: eight numbers, 32 lanes that share the slices.
#define REDUCE_NUMBERS 8
#define REDUCE_LANES 32

// Adds up a thread's number over the lanes of a finish; the sum is in lane 0.
__device__ inline double reduce_finish_lanes(double* shared, double value) {
    int lane = int(threadIdx.x) / REDUCE_NUMBERS;
    SYNC();
    shared[threadIdx.x] = value;
    for (int half = REDUCE_LANES / 2; half; half /= 2) {
        SYNC();
        if (lane < half) shared[threadIdx.x] += shared[threadIdx.x + half * REDUCE_NUMBERS];
    }
    return shared[threadIdx.x];
}

// Adds up rows of `numbers` partial sums; the first `split` go to `left`, the others to `right`.
extern "C" __global__ void reduce_finish(const float* __restrict__ partial, float* left, float* right, int slices, int numbers, int split) {
    SHARED(double, shared, REDUCE_NUMBERS * REDUCE_LANES);
    int number = int(blockIdx.x) * REDUCE_NUMBERS + int(threadIdx.x) % REDUCE_NUMBERS, lane = int(threadIdx.x) / REDUCE_NUMBERS;
    double sum = 0.;
    if (number < numbers)
#pragma unroll 4
        for (int slice = lane; slice < slices; slice += REDUCE_LANES) sum += partial[size_t(slice) * numbers + number];
    sum = reduce_finish_lanes(shared, sum);
    if (lane || number >= numbers) return;
    if (number < split) left[number] = float(sum);
    else if (right) right[number - split] = float(sum);
}
