// Queries, keys and values between rows of all channels and matrices of one head each; softmax is that of rows.

// Rows (examples x tokens) of `parts` times (heads x width) channels to matrices [part][example, head][token][width, padded]: a
// thread has one piece of what is written. Where heads begin at whole pieces, whole pieces are read.
template <class T>
__device__ void pack_heads(const T* __restrict__ rows, T* __restrict__ packed, int pieces, int examples, int tokens, int heads, int width, int per_row,
                           int stride) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int first = at % per_row * LEN, rest = at / per_row, token = rest % tokens;
    rest /= tokens;
    int head = rest % heads;
    rest /= heads;
    int example = rest % examples, part = rest / examples;
    const T* from = rows + (size_t(example) * tokens + token) * stride + (part * heads + head) * width + first;
    Piece<T> piece;
    if (width % LEN == 0) {
        piece = load(from);
    } else {
        for (int i = 0; i < LEN; ++i) piece.at[i] = first + i < width ? from[i] : T(0.f);
    }
    store(packed + size_t(at) * LEN, piece);
}
KERNEL(pack_heads, (const T* rows, T* packed, int pieces, int examples, int tokens, int heads, int width, int per_row, int stride),
       (rows, packed, pieces, examples, tokens, heads, width, per_row, stride))

// The inverse, stored or added: a thread has one piece of a row.
template <class T>
__device__ void unpack_heads(const T* __restrict__ packed, T* __restrict__ rows, int pieces, int examples, int tokens, int heads, int width, int padded,
                             int stride, int channels, int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    int per_row = stride / LEN, first = at % per_row * LEN, row = at / per_row, token = row % tokens, example = row / tokens;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) piece.at[i] = T(0.f);
#pragma unroll
    for (int i = 0; i < LEN; ++i) {
        int channel = first + i;
        if (channel >= channels) break;
        int head = channel / width, part = head / heads;
        const T* from = packed + (((size_t(part) * examples + example) * heads + head % heads) * tokens + token) * padded + channel % width;
        if (width % LEN == 0) {
            piece = load(from);
            break;
        }
        piece.at[i] = *from;
    }
    ew_put(rows + size_t(at) * LEN, piece, accumulate);
}
KERNEL(unpack_heads,
       (const T* packed, T* rows, int pieces, int examples, int tokens, int heads, int width, int padded, int stride, int channels, int accumulate),
       (packed, rows, pieces, examples, tokens, heads, width, padded, stride, channels, accumulate))
