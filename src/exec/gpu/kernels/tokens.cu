// What transformers do with whole tokens. Where nothing else is said a thread has one piece of what is written.

// `token` before the tokens of every example: y has `tokens`, x one less.
template <class T>
__device__ void prepend(const float* __restrict__ token, const T* __restrict__ x, T* __restrict__ y, int pieces, int per_row, int channels, int tokens) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int row = at / per_row, q = at % per_row, example = row / tokens;
    Piece<T> piece;
    if (row % tokens == 0) {
        for (int i = 0; i < LEN; ++i) piece.at[i] = T(q * LEN + i < channels ? token[q * LEN + i] : 0.f);
    } else {
        piece = load(x + (size_t(row - example - 1) * per_row + q) * LEN);
    }
    store(y + size_t(at) * LEN, piece);
}
KERNEL(prepend, (const float* token, const T* x, T* y, int pieces, int per_row, int channels, int tokens), (token, x, y, pieces, per_row, channels, tokens))

// Sums over all examples of their first `rows` rows, dense; a block has 32 pieces and 8 threads for each.
template <class T>
__device__ void sum_examples(const T* __restrict__ dy, float* __restrict__ sums, int examples, int rows, int example_rows, int per_row, int channels) {
    constexpr int LEN = Piece<T>::LEN, LANES = 8;
    SHARED(float, part, LANES * 32 * LEN);
    int column = threadIdx.x % 32, lane = threadIdx.x / 32, at = int(blockIdx.x) * 32 + column;
    float sum[LEN];
    for (int i = 0; i < LEN; ++i) sum[i] = 0.f;
    if (at < rows * per_row) {
#pragma unroll 4
        for (int example = lane; example < examples; example += LANES) {
            Piece<T> piece = load(dy + (size_t(example) * example_rows * per_row + at) * LEN);
            for (int i = 0; i < LEN; ++i) sum[i] += float(piece.at[i]);
        }
    }
    for (int i = 0; i < LEN; ++i) part[i * 256 + threadIdx.x] = sum[i];
    SYNC();
    if (lane != 0 || at >= rows * per_row) return;
    int row = at / per_row, first = at % per_row * LEN;
    for (int i = 0; i < LEN; ++i) {
        float all = 0.f;
        for (int l = 0; l < LANES; ++l) all += part[i * 256 + l * 32 + column];
        if (first + i < channels) sums[size_t(row) * channels + first + i] = all;
    }
}
KERNEL(sum_examples, (const T* dy, float* sums, int examples, int rows, int example_rows, int per_row, int channels),
       (dy, sums, examples, rows, example_rows, per_row, channels))

// Of every example's `from_rows` rows those from `first` on, as many as `rows`.
template <class T>
__device__ void take_rows(const T* __restrict__ from, T* __restrict__ to, int pieces, int per_row, int rows, int from_rows, int first, int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int row = at / per_row, source = row / rows * from_rows + row % rows + first;
    ew_put(to + size_t(at) * LEN, load(from + (size_t(source) * per_row + at % per_row) * LEN), accumulate);
}
KERNEL(take_rows, (const T* from, T* to, int pieces, int per_row, int rows, int from_rows, int first, int accumulate),
       (from, to, pieces, per_row, rows, from_rows, first, accumulate))

// One row of each example to the row `index` of its `rows`; 0 to the others.
template <class T> __device__ void place_row(const T* __restrict__ from, T* __restrict__ to, int pieces, int per_row, int rows, int index) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int row = at / per_row;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) piece.at[i] = T(0.f);
    if (row % rows == index) piece = load(from + (size_t(row / rows) * per_row + at % per_row) * LEN);
    store(to + size_t(at) * LEN, piece);
}
KERNEL(place_row, (const T* from, T* to, int pieces, int per_row, int rows, int index), (from, to, pieces, per_row, rows, index))

// The same for the row alone, added to what is there.
template <class T> __device__ void add_row(const T* __restrict__ from, T* __restrict__ to, int pieces, int per_row, int rows, int index) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    size_t row = size_t(at / per_row) * rows + index;
    ew_put(to + (row * per_row + at % per_row) * LEN, load(from + size_t(at) * LEN), 1);
}
KERNEL(add_row, (const T* from, T* to, int pieces, int per_row, int rows, int index), (from, to, pieces, per_row, rows, index))

// y = x + weight, in which each of `rows` rows has its own.
template <class T>
__device__ void embed(const float* __restrict__ weight, const T* __restrict__ x, T* __restrict__ y, int pieces, int per_row, int channels, int rows) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int first = at % per_row * LEN;
    const float* own = weight + size_t(at / per_row % rows) * channels;
    Piece<T> piece = load(x + size_t(at) * LEN);
    for (int i = 0; i < LEN; ++i)
        if (first + i < channels) piece.at[i] = T(float(piece.at[i]) + own[first + i]);
    store(y + size_t(at) * LEN, piece);
}
KERNEL(embed, (const float* weight, const T* x, T* y, int pieces, int per_row, int channels, int rows), (weight, x, y, pieces, per_row, channels, rows))

// y = x weight, or y += , the same for all rows.
template <class T>
__device__ void scale_rows(const float* __restrict__ weight, const T* __restrict__ x, T* __restrict__ y, int pieces, int per_row, int channels,
                           int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int first = at % per_row * LEN;
    Piece<T> piece = load(x + size_t(at) * LEN), old;
    if (accumulate) old = load(y + size_t(at) * LEN);
    for (int i = 0; i < LEN; ++i) {
        float value = first + i < channels ? float(piece.at[i]) * weight[first + i] : 0.f;
        piece.at[i] = T(accumulate ? float(old.at[i]) + value : value);
    }
    store(y + size_t(at) * LEN, piece);
}
KERNEL(scale_rows, (const float* weight, const T* x, T* y, int pieces, int per_row, int channels, int accumulate),
       (weight, x, y, pieces, per_row, channels, accumulate))
