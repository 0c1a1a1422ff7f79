// Operations on every number by itself, or on the channels of a row. Where nothing else is said a thread has one piece.

__device__ inline int ew_thread() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

// Functions of single values and their slopes, in the order of the host's codes.

__device__ inline float ew_sigmoid(float x) { return __fdividef(1.f, 1.f + expf(-x)); }
__device__ inline float ew_positive(float x) { return x < 0.f ? 0.f : x; }  // NaN stays
__device__ inline float ew_relu6(float x) { return x > 6.f ? 6.f : ew_positive(x); }
__device__ inline float ew_hardsigmoid(float x) { return ew_relu6(x + 3.f) * (1.f / 6.f); }
__device__ inline float ew_normal(float x) { return 0.5f + 0.5f * erff(x * 0.70710678118654752f); }
// What stands for the normal distribution's function in GELU by the hyperbolic tangent.
__device__ inline float ew_bent(float x) { return ew_sigmoid(1.59576912160573071f * (x + 0.044715f * x * x * x)); }
__device__ inline float ew_softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }
// tanh(softplus(x)).
__device__ inline float ew_gate(float x) {
    if (x > 20.f) return 1.f;
    float e = expf(x), n = e * (e + 2.f);
    return n / (n + 2.f);
}
__device__ inline float ew_between(float x, float low, float high, float value) { return x > low && x < high ? value : 0.f; }
__device__ inline float ew_gelu_slope(float x) { return ew_normal(x) + x * (0.39894228040143268f * expf(-0.5f * x * x)); }
__device__ inline float ew_gelu_tanh_slope(float x) {
    float s = ew_bent(x), inner = 1.59576912160573071f * (1.f + 0.134145f * x * x);
    // Far from 0 the inner factor grows without end where the outer one has long been 0.
    return fabsf(x) > 30.f ? s : s + x * s * (1.f - s) * inner;
}
__device__ inline float ew_silu_slope(float x) {
    float s = ew_sigmoid(x);
    return s * (1.f + x * (1.f - s));
}
__device__ inline float ew_hardswish_slope(float x) { return x < -3.f ? 0.f : x <= 3.f ? x / 3.f + 0.5f : 1.f; }
__device__ inline float ew_sigmoid_slope(float x) {
    float s = ew_sigmoid(x);
    return s * (1.f - s);
}
__device__ inline float ew_tanh_slope(float x) {
    float t = tanhf(x);
    return 1.f - t * t;
}
__device__ inline float ew_mish_slope(float x) {
    float gate = ew_gate(x);
    return gate + x * ew_sigmoid(x) * (1.f - gate * gate);
}

// The choice is made once for a piece, outside of the loop over its numbers.
#define EW_CASE(code, expression)                                    \
    case code:                                                       \
        for (int i = 0; i < LEN; ++i) {                              \
            float x = v[i];                                          \
            (void)x;                                                 \
            v[i] = expression;                                       \
        }                                                            \
        break;

template <int LEN> __device__ inline void ew_apply(int code, float a, float b, float* v) {
    switch (code) {
        EW_CASE(0, ew_positive(x))
        EW_CASE(1, ew_relu6(x))
        EW_CASE(2, x < 0.f ? a * x : x)
        EW_CASE(3, x * ew_normal(x))
        EW_CASE(4, x * ew_bent(x))
        EW_CASE(5, x * ew_sigmoid(x))
        EW_CASE(6, x * ew_hardsigmoid(x))
        EW_CASE(7, ew_sigmoid(x))
        EW_CASE(8, ew_hardsigmoid(x))
        EW_CASE(9, tanhf(x))
        EW_CASE(10, b * (x > 0.f ? x : a * expm1f(x)))
        EW_CASE(11, x * ew_gate(x))
        EW_CASE(12, ew_softplus(x))
        EW_CASE(13, a * x)
    }
}
template <int LEN> __device__ inline void ew_slope(int code, float a, float b, float* v) {
    switch (code) {
        EW_CASE(0, x > 0.f ? 1.f : 0.f)
        EW_CASE(1, ew_between(x, 0.f, 6.f, 1.f))
        EW_CASE(2, x > 0.f ? 1.f : a)
        EW_CASE(3, ew_gelu_slope(x))
        EW_CASE(4, ew_gelu_tanh_slope(x))
        EW_CASE(5, ew_silu_slope(x))
        EW_CASE(6, ew_hardswish_slope(x))
        EW_CASE(7, ew_sigmoid_slope(x))
        EW_CASE(8, ew_between(x, -3.f, 3.f, 1.f / 6.f))
        EW_CASE(9, ew_tanh_slope(x))
        EW_CASE(10, b * (x > 0.f ? 1.f : a * expf(x)))
        EW_CASE(11, ew_mish_slope(x))
        EW_CASE(12, x > 20.f ? 1.f : ew_sigmoid(x))
        EW_CASE(13, a)
    }
}

// y = f(x). Some functions are not 0 at 0, so that what lies behind the channels is set.
template <class T>
__device__ void function(const T* __restrict__ x, T* __restrict__ y, int pieces, int per_row, int channels, int code, float a, float b) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    Piece<T> piece = load(x + size_t(at) * LEN);
    float v[LEN];
    for (int i = 0; i < LEN; ++i) v[i] = float(piece.at[i]);
    ew_apply<LEN>(code, a, b, v);
    int first = channels == per_row * LEN ? 0 : at % per_row * LEN;
    for (int i = 0; i < LEN; ++i) piece.at[i] = T(first + i < channels ? v[i] : 0.f);
    store(y + size_t(at) * LEN, piece);
}
KERNEL(function, (const T* x, T* y, int pieces, int per_row, int channels, int code, float a, float b), (x, y, pieces, per_row, channels, code, a, b))

// dx = dy f'(x), or dx += .
template <class T>
__device__ void function_backward(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx, int pieces, int code, float a, float b,
                                  int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * LEN;
    Piece<T> piece = load(x + first), slope = load(dy + first), result;
    if (accumulate) result = load(dx + first);
    float v[LEN];
    for (int i = 0; i < LEN; ++i) v[i] = float(piece.at[i]);
    ew_slope<LEN>(code, a, b, v);
    for (int i = 0; i < LEN; ++i) {
        float gradient = float(slope.at[i]) * v[i];
        result.at[i] = T(accumulate ? float(result.at[i]) + gradient : gradient);
    }
    store(dx + first, result);
}
KERNEL(function_backward, (const T* x, const T* dy, T* dx, int pieces, int code, float a, float b, int accumulate), (x, dy, dx, pieces, code, a, b, accumulate))

// y = a + b, then ReLU if wanted.
template <class T> __device__ void add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ y, int pieces, int relu) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * Piece<T>::LEN;
    Piece<T> left = load(a + first), right = load(b + first);
    for (int i = 0; i < Piece<T>::LEN; ++i) {
        float sum = float(left.at[i]) + float(right.at[i]);
        left.at[i] = T(relu ? ew_positive(sum) : sum);
    }
    store(y + first, left);
}
KERNEL(add, (const T* a, const T* b, T* y, int pieces, int relu), (a, b, y, pieces, relu))

// A piece, stored or added to what is there.
template <class T> __device__ inline void ew_put(T* to, Piece<T> piece, int accumulate) {
    if (accumulate) {
        Piece<T> old = load(to);
        for (int i = 0; i < Piece<T>::LEN; ++i) piece.at[i] = T(float(old.at[i]) + float(piece.at[i]));
    }
    store(to, piece);
}

template <class T> __device__ void put(const T* __restrict__ from, T* __restrict__ to, int pieces, int accumulate) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * Piece<T>::LEN;
    ew_put(to + first, load(from + first), accumulate);
}
KERNEL(put, (const T* from, T* to, int pieces, int accumulate), (from, to, pieces, accumulate))

// dy becomes 0 where y is not above 0.
template <class T> __device__ void relu_backward(const T* __restrict__ y, T* __restrict__ dy, int pieces) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * Piece<T>::LEN;
    Piece<T> value = load(y + first), gradient = load(dy + first);
    for (int i = 0; i < Piece<T>::LEN; ++i)
        if (!(float(value.at[i]) > 0.f)) gradient.at[i] = T(0.f);
    store(dy + first, gradient);
}
KERNEL(relu_backward, (const T* y, T* dy, int pieces), (y, dy, pieces))

// y = wide narrow or y += ; each row of `narrow` meets as many rows of `wide` one after another.
template <class T>
__device__ void multiply(const T* __restrict__ wide, const T* __restrict__ narrow, T* __restrict__ y, int pieces, int per_row, int rows, int accumulate) {
    int at = ew_thread();
    if (at >= pieces) return;
    size_t first = size_t(at) * Piece<T>::LEN;
    int factor = rows == 1 ? at : at / per_row / rows * per_row + at % per_row;
    Piece<T> left = load(wide + first), right = load(narrow + size_t(factor) * Piece<T>::LEN), result;
    if (accumulate) result = load(y + first);
    for (int i = 0; i < Piece<T>::LEN; ++i) {
        float product = float(left.at[i]) * float(right.at[i]);
        result.at[i] = T(accumulate ? float(result.at[i]) + product : product);
    }
    store(y + first, result);
}
KERNEL(multiply, (const T* wide, const T* narrow, T* y, int pieces, int per_row, int rows, int accumulate),
       (wide, narrow, y, pieces, per_row, rows, accumulate))

// The sum over an example's rows of dy wide: a block has an example (y) and `columns` pieces (x), each with as many threads as fit.
template <class T>
__device__ void multiply_narrow_backward(const T* __restrict__ wide, const T* __restrict__ dy, T* __restrict__ dnarrow, int per_row, int rows, int columns,
                                         int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    SHARED(float, part, 256 * LEN);
    int column = threadIdx.x % columns, lane = threadIdx.x / columns, lanes = blockDim.x / columns;
    int piece = blockIdx.x * columns + column;
    float sums[LEN];
    for (int i = 0; i < LEN; ++i) sums[i] = 0.f;
    if (piece < per_row) {
        size_t first = (size_t(blockIdx.y) * rows * per_row + piece) * LEN;
#pragma unroll 4
        for (int row = lane; row < rows; row += lanes) {
            Piece<T> x = load(wide + first + size_t(row) * per_row * LEN), d = load(dy + first + size_t(row) * per_row * LEN);
            for (int i = 0; i < LEN; ++i) sums[i] += float(x.at[i]) * float(d.at[i]);
        }
    }
    for (int i = 0; i < LEN; ++i) part[i * 256 + threadIdx.x] = sums[i];
    SYNC();
    if (lane != 0 || piece >= per_row) return;
    Piece<T> result;
    for (int i = 0; i < LEN; ++i) {
        float sum = 0.f;
#pragma unroll 1
        for (int l = 0; l < lanes; ++l) sum += part[i * 256 + l * columns + column];
        result.at[i] = T(sum);
    }
    ew_put(dnarrow + (size_t(blockIdx.y) * per_row + piece) * LEN, result, accumulate);
}
KERNEL(multiply_narrow_backward, (const T* wide, const T* dy, T* dnarrow, int per_row, int rows, int columns, int accumulate),
       (wide, dy, dnarrow, per_row, rows, columns, accumulate))

// Sixteen words of the cipher ChaCha with 8 rounds. The key is the training's seed, the step and the layer.
__device__ inline void ew_quarter(u32& a, u32& b, u32& c, u32& d) {
    a += b; d ^= a; d = d << 16 | d >> 16;
    c += d; b ^= c; b = b << 12 | b >> 20;
    a += b; d ^= a; d = d << 8 | d >> 24;
    c += d; b ^= c; b = b << 7 | b >> 25;
}
__device__ inline void ew_chacha(const u32* __restrict__ draw, u32 layer, u32 block, u32 stream, u32* word) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u, draw[0], draw[1], draw[2], draw[3], layer, 0, 0, 0, block, 0, stream, 0};
    for (int i = 0; i < 16; ++i) word[i] = start[i];
#pragma unroll 1
    for (int twice = 0; twice < 4; ++twice) {
        for (int i = 0; i < 4; ++i) ew_quarter(word[i], word[4 + i], word[8 + i], word[12 + i]);
        for (int i = 0; i < 4; ++i) ew_quarter(word[i], word[4 + (i + 1) % 4], word[8 + (i + 2) % 4], word[12 + (i + 3) % 4]);
    }
    for (int i = 0; i < 16; ++i) word[i] += start[i];
}

// y = mask x / (1 - p) or y += , of 4096 numbers a block, counted without those behind channels: each thread draws for sixteen, one block
// of the cipher. Each 2^14 numbers are a stream of their own.
template <class T>
__device__ void dropout(const T* __restrict__ x, T* __restrict__ y, const u32* __restrict__ draw, int rows, int channels, int stride, int layer, int limit,
                        float factor, int accumulate) {
    constexpr int LEN = Piece<T>::LEN, NUMBERS = 4096;
    SHARED(u32, words, NUMBERS);
    size_t numbers = size_t(rows) * channels, begin = size_t(blockIdx.x) * NUMBERS, first = begin + threadIdx.x * 16;
    u32 word[16];
    ew_chacha(draw, u32(layer), u32(first % 16384 / 16), u32(first / 16384), word);
    for (int i = 0; i < 16; ++i) words[threadIdx.x * 16 + i] = word[i];
    SYNC();
    if (channels == stride) {
        for (int at = threadIdx.x * LEN; at < NUMBERS && begin + at < numbers; at += blockDim.x * LEN) {
            Piece<T> piece = load(x + begin + at);
            for (int i = 0; i < LEN; ++i) piece.at[i] = T(words[at + i] < u32(limit) ? 0.f : float(piece.at[i]) * factor);
            ew_put(y + begin + at, piece, accumulate);
        }
        return;
    }
    for (int at = threadIdx.x; at < NUMBERS && begin + at < numbers; at += blockDim.x) {
        size_t row = (begin + at) / channels;
        int c = int(begin + at - row * channels);
        float kept = words[at] < u32(limit) ? 0.f : float(x[row * stride + c]) * factor;
        T* to = y + row * stride + c;
        *to = T(accumulate ? float(*to) + kept : kept);
        if (c == channels - 1)
            for (int pad = 1; c + pad < stride; ++pad) to[pad] = T(0.f);
    }
}
KERNEL(dropout, (const T* x, T* y, const u32* draw, int rows, int channels, int stride, int layer, int limit, float factor, int accumulate),
       (x, y, draw, rows, channels, stride, layer, limit, factor, accumulate))

// Rows are shared by `group` lanes of a warp, a power of two.
__device__ inline float ew_group_sum(float value, int group) {
    for (int mask = group / 2; mask; mask >>= 1) value += SHFL_XOR(value, mask);
    return value;
}
__device__ inline float ew_group_max(float value, int group) {
    for (int mask = group / 2; mask; mask >>= 1) value = fmaxf(value, SHFL_XOR(value, mask));
    return value;
}

// As many numbers as a piece of another storage has, as floats.
template <class S, int LEN> __device__ inline void ew_floats(const S* from, float (&to)[LEN]) {
#pragma unroll
    for (int first = 0; first < LEN; first += Piece<S>::LEN) {
        Piece<S> piece = load(from + first);
        for (int i = 0; i < Piece<S>::LEN; ++i) to[first + i] = float(piece.at[i]);
    }
}

// y = softmax(factor x) of every row; y may be x. What a lane holds of a row stays in registers; longer rows are read again.
template <class S, class T>
__device__ inline void ew_softmax(const S* x, T* y, int rows, int per_row, int channels, int group, float factor) {
    constexpr int LEN = Piece<T>::LEN, HELD = 4;
    const float lowest = __uint_as_float(0xff800000u);
    int thread = ew_thread(), row = thread / group, lane = thread % group;
    size_t first = size_t(row) * per_row * LEN;
    int mine = row < rows ? per_row : 0;
    float held[HELD][LEN], most = lowest, sum = 0.f;
#pragma unroll
    for (int h = 0; h < HELD; ++h) {
        int q = lane + h * group;
        if (q < mine) ew_floats(x + first + q * LEN, held[h]);
        for (int i = 0; i < LEN; ++i) {
            if (q >= mine || q * LEN + i >= channels) held[h][i] = lowest;
            most = fmaxf(most, held[h][i]);
        }
    }
    for (int q = lane + HELD * group; q < mine; q += group) {
        float more[LEN];
        ew_floats(x + first + q * LEN, more);
        for (int i = 0; i < LEN; ++i)
            if (q * LEN + i < channels) most = fmaxf(most, more[i]);
    }
    most = ew_group_max(most, group);
#pragma unroll
    for (int h = 0; h < HELD; ++h) {
        if (h * group >= per_row) break;  // for all lanes alike
        for (int i = 0; i < LEN; ++i) {
            held[h][i] = expf(factor * (held[h][i] - most));
            if ((lane + h * group) * LEN + i < channels) sum += held[h][i];
        }
    }
    for (int q = lane + HELD * group; q < mine; q += group) {
        float more[LEN];
        ew_floats(x + first + q * LEN, more);
        for (int i = 0; i < LEN; ++i)
            if (q * LEN + i < channels) sum += expf(factor * (more[i] - most));
    }
    float share = 1.f / ew_group_sum(sum, group);
#pragma unroll
    for (int h = 0; h < HELD; ++h) {
        int q = lane + h * group;
        Piece<T> piece;
        for (int i = 0; i < LEN; ++i) piece.at[i] = T(q * LEN + i < channels ? held[h][i] * share : 0.f);
        if (q < mine) store(y + first + q * LEN, piece);
    }
    for (int q = lane + HELD * group; q < mine; q += group) {
        float more[LEN];
        ew_floats(x + first + q * LEN, more);
        Piece<T> piece;
        for (int i = 0; i < LEN; ++i) piece.at[i] = T(q * LEN + i < channels ? expf(factor * (more[i] - most)) * share : 0.f);
        store(y + first + q * LEN, piece);
    }
}
template <class T> __device__ void softmax(const T* x, T* y, int rows, int per_row, int channels, int group, float factor) {
    ew_softmax(x, y, rows, per_row, channels, group, factor);
}
KERNEL(softmax, (const T* x, T* y, int rows, int per_row, int channels, int group, float factor), (x, y, rows, per_row, channels, group, factor))

// The same of rows of floats, with as many numbers from one to the next.
template <class T> __device__ void softmax_scores(const float* x, T* y, int rows, int per_row, int channels, int group, float factor) {
    ew_softmax(x, y, rows, per_row, channels, group, factor);
}
KERNEL(softmax_scores, (const float* x, T* y, int rows, int per_row, int channels, int group, float factor),
       (x, y, rows, per_row, channels, group, factor))

// dx = factor y (dy - sum dy y) by the output y, or dx += ; dx may be y or dy. What lies behind the channels of y is 0, and of dy never read.
template <class S, class T>
__device__ inline void ew_softmax_backward(const T* y, const S* dy, T* dx, int rows, int per_row, int channels, int group, float factor, int accumulate) {
    constexpr int LEN = Piece<T>::LEN;
    int thread = ew_thread(), row = thread / group, lane = thread % group;
    size_t first = size_t(row) * per_row * LEN;
    int mine = row < rows ? per_row : 0;
    float mean = 0.f;
#pragma unroll 2
    for (int q = lane; q < mine; q += group) {
        Piece<T> p = load(y + first + q * LEN);
        float d[LEN];
        ew_floats(dy + first + q * LEN, d);
        for (int i = 0; i < LEN; ++i)
            if (q * LEN + i < channels) mean += float(p.at[i]) * d[i];
    }
    mean = ew_group_sum(mean, group);
#pragma unroll 2
    for (int q = lane; q < mine; q += group) {
        Piece<T> p = load(y + first + q * LEN);
        float d[LEN];
        ew_floats(dy + first + q * LEN, d);
        for (int i = 0; i < LEN; ++i)
            p.at[i] = T(q * LEN + i < channels ? factor * float(p.at[i]) * (d[i] - mean) : 0.f);
        ew_put(dx + first + q * LEN, p, accumulate);
    }
}
template <class T>
__device__ void softmax_backward(const T* y, const T* dy, T* dx, int rows, int per_row, int channels, int group, float factor, int accumulate) {
    ew_softmax_backward(y, dy, dx, rows, per_row, channels, group, factor, accumulate);
}
KERNEL(softmax_backward, (const T* y, const T* dy, T* dx, int rows, int per_row, int channels, int group, float factor, int accumulate),
       (y, dy, dx, rows, per_row, channels, group, factor, accumulate))

// The same with dy in floats.
template <class T>
__device__ void softmax_scores_backward(const T* y, const float* dy, T* dx, int rows, int per_row, int channels, int group, float factor) {
    ew_softmax_backward(y, dy, dx, rows, per_row, channels, group, factor, 0);
}
KERNEL(softmax_scores_backward, (const T* y, const float* dy, T* dx, int rows, int per_row, int channels, int group, float factor),
       (y, dy, dx, rows, per_row, channels, group, factor))
