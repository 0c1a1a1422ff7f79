// Moving numbers without changing them. Where nothing else is said a thread has one piece of what is written.

// The numbers of every example in the order of (channels x positions), laid out for other channels and positions.
template <class T>
__device__ void reshape(const T* __restrict__ from, T* __restrict__ to, int pieces, int from_positions, int from_stride, int positions, int channels,
                        int stride, int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int per_row = stride / LEN, row = at / per_row, first = at % per_row * LEN;
    int example = row / positions, position = row % positions;
    const T* source = from + size_t(example) * from_positions * from_stride;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) {
        piece.at[i] = T(0.f);
        if (first + i < channels) {
            int index = (first + i) * positions + position;
            piece.at[i] = source[size_t(index % from_positions) * from_stride + index / from_positions];
        }
    }
    ew_put(to + size_t(at) * LEN, piece, accumulate);
}
KERNEL(reshape, (const T* from, T* to, int pieces, int from_positions, int from_stride, int positions, int channels, int stride, int accumulate),
       (from, to, pieces, from_positions, from_stride, positions, channels, stride, accumulate))

// Columns of whole pieces from one matrix to another: the strides and first columns are counted in pieces.
template <class T>
__device__ void move_pieces(const T* __restrict__ from, T* __restrict__ to, int pieces, int width, int from_stride, int from_first, int stride, int first,
                            int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int row = at / width, column = at % width;
    ew_put(to + (size_t(row) * stride + first + column) * LEN, load(from + (size_t(row) * from_stride + from_first + column) * LEN), accumulate);
}
KERNEL(move_pieces, (const T* from, T* to, int pieces, int width, int from_stride, int from_first, int stride, int first, int accumulate),
       (from, to, pieces, width, from_stride, from_first, stride, first, accumulate))

// The same number by number, a thread each; of `width` columns those from `channels` on become 0.
template <class T>
__device__ void move_columns(const T* __restrict__ from, T* __restrict__ to, int numbers, int width, int channels, int from_stride, int from_first, int stride,
                             int first, int accumulate) {
    int at = ew_thread();
    if (at >= numbers) return;
    int row = at / width, column = at % width;
    T* target = to + size_t(row) * stride + first + column;
    float value = column < channels ? float(from[size_t(row) * from_stride + from_first + column]) : 0.f;
    *target = T(accumulate ? float(*target) + value : value);
}
KERNEL(move_columns, (const T* from, T* to, int numbers, int width, int channels, int from_stride, int from_first, int stride, int first, int accumulate),
       (from, to, numbers, width, channels, from_stride, from_first, stride, first, accumulate))

// Images of (height x width) cut out of others, or put into zeros: what is read begins `down` and `right` of what is written.
template <class T>
__device__ void shift_images(const T* __restrict__ from, T* __restrict__ to, int pieces, int per_row, int height, int width, int from_height, int from_width,
                             int down, int right, int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int row = at / per_row, column = row % width + right, line = row / width % height + down, example = row / width / height;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) piece.at[i] = T(0.f);
    if (line >= 0 && line < from_height && column >= 0 && column < from_width)
        piece = load(from + (((size_t(example) * from_height + line) * from_width + column) * per_row + at % per_row) * LEN);
    ew_put(to + size_t(at) * LEN, piece, accumulate);
}
KERNEL(shift_images,
       (const T* from, T* to, int pieces, int per_row, int height, int width, int from_height, int from_width, int down, int right, int accumulate),
       (from, to, pieces, per_row, height, width, from_height, from_width, down, right, accumulate))
