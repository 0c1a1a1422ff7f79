// Inputs as the host has them become channels-last values. A thread has one piece of a position; neighbours in a warp have neighbouring
// positions, so that they read whole lines of a channel.

struct StagingAt { int example, q, position; };
__device__ inline StagingAt staging_at(int at, int per_row, int positions) {
    StagingAt where;
    where.position = at % positions;
    at /= positions;
    where.q = at % per_row;
    where.example = at / per_row;
    return where;
}

// Channels move behind the positions.
template <class T>
__device__ void stage(const float* __restrict__ images, T* __restrict__ y, int pieces, int per_row, int channels, int positions) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    StagingAt w = staging_at(at, per_row, positions);
    const float* from = images + size_t(w.example) * channels * positions + w.position;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) {
        int c = w.q * LEN + i;
        piece.at[i] = T(c < channels ? from[size_t(c) * positions] : 0.f);
    }
    store(y + ((size_t(w.example) * positions + w.position) * per_row + w.q) * LEN, piece);
}
KERNEL(stage, (const float* images, T* y, int pieces, int per_row, int channels, int positions), (images, y, pieces, per_row, channels, positions))

// Images of bytes by their index in a data set: divided by 255, less the channel's mean, by its deviation, in the host's order of
// operations. `views` has for each example how far below and to the right its piece begins and whether it is mirrored; outside it is black.
// Stored channels are repeated where there are fewer than wanted. Behind the end of a batch are indices of an earlier one, perhaps into
// more images than these: what is read for them is not looked at, but has to be there.
template <class T>
__device__ void gather(const u8* __restrict__ pixels, const u32* __restrict__ indices, const float* __restrict__ affine, const int* __restrict__ views,
                       T* __restrict__ y, int pieces, int per_row, int channels, int stored, int height, int width, int images) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread(), positions = height * width;
    if (at >= pieces) return;
    StagingAt w = staging_at(at, per_row, positions);
    int line = w.position / width, column = w.position % width;
    if (views) {
        const int* view = views + 3 * w.example;
        if (view[2]) column = width - 1 - column;
        line += view[0];
        column += view[1];
    }
    bool inside = line >= 0 && line < height && column >= 0 && column < width;
    const u8* from = pixels + size_t(min(indices[w.example], u32(images - 1))) * stored * positions + line * width + column;
    Piece<T> piece;
    for (int i = 0; i < LEN; ++i) {
        int c = w.q * LEN + i;
        float value = 0.f;
        if (c < channels) {
            float byte = inside ? float(from[size_t(c % stored) * positions]) : 0.f;
            value = __fdiv_rn(__fsub_rn(__fdiv_rn(byte, 255.f), affine[2 * c]), affine[2 * c + 1]);
        }
        piece.at[i] = T(value);
    }
    store(y + ((size_t(w.example) * positions + w.position) * per_row + w.q) * LEN, piece);
}
KERNEL(gather,
       (const u8* pixels, const u32* indices, const float* affine, const int* views, T* y, int pieces, int per_row, int channels, int stored, int height,
        int width, int images),
       (pixels, indices, affine, views, y, pieces, per_row, channels, stored, height, width, images))
