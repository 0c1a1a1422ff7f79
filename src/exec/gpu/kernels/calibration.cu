// Rows of features and targets out of values, and what is added up over them. Rows are f32, sums f64.

// For each example and place (a position of its image, and how far behind the named channels the ones are that are read) the channels
// of `picks` (channel, column) are added to their columns, times their factors. No two picks have one column.
extern "C" __global__ void pick_rows(const float* __restrict__ values, const int* __restrict__ places, const int* __restrict__ picks,
                                     const float* __restrict__ factors, float* rows, int numbers, int count, int per_example, int positions,
                                     int stride, int row_stride) {
    int at = ew_thread();
    if (at >= numbers) return;
    int pick = at % count, row = at / count, place = row % per_example, example = row / per_example;
    size_t pixel = size_t(example) * positions + places[2 * place];
    rows[size_t(row) * row_stride + picks[2 * pick + 1]] += factors[pick] * values[pixel * stride + picks[2 * pick] + places[2 * place + 1]];
}

// For each example and place of the output what a kernel sees there, kh x kw x `width` channels for one group of channels after another.
// `sizes`: height and width of the image, of the kernel, steps between kernels, zeros around, steps within.
extern "C" __global__ void window_rows(const float* __restrict__ values, const int* __restrict__ places, const int* __restrict__ sizes, float* __restrict__ rows,
                                       int numbers, int columns, int per_example, int output_width, int width, int stride, int row_stride) {
    int at = ew_thread();
    if (at >= numbers) return;
    int column = at % columns, row = at / columns, place = places[2 * (row % per_example)], example = row / per_example;
    int taps = sizes[2] * sizes[3], tap = column / width % taps, channel = column / width / taps * width + column % width;
    int y = place / output_width * sizes[4] - sizes[6] + tap / sizes[3] * sizes[8];
    int x = place % output_width * sizes[5] - sizes[7] + tap % sizes[3] * sizes[9];
    float value = 0.f;
    if (y >= 0 && y < sizes[0] && x >= 0 && x < sizes[1])
        value = values[((size_t(example) * sizes[0] + y) * sizes[1] + x) * stride + channel];
    rows[size_t(row) * row_stride + column] = value;
}

// How a block of column sums is laid out: 32 columns, 16 lanes that share the rows.
#define CALIBRATION_COLUMNS 32
#define CALIBRATION_LANES 16

// Adds the numbers of each column to `sums`, and their squares to `squares` if there are any.
extern "C" __global__ void add_columns(const float* __restrict__ rows, double* __restrict__ sums, double* __restrict__ squares, int count, int columns,
                                       int row_stride) {
    SHARED(double, shared, 2 * CALIBRATION_COLUMNS * CALIBRATION_LANES);
    int lane = int(threadIdx.x) / CALIBRATION_COLUMNS, column = int(blockIdx.x) * CALIBRATION_COLUMNS + int(threadIdx.x) % CALIBRATION_COLUMNS;
    double sum = 0., square = 0.;
    if (column < columns)
#pragma unroll 4
        for (int row = lane; row < count; row += CALIBRATION_LANES) {
            double value = rows[size_t(row) * row_stride + column];
            sum += value;
            square += value * value;
        }
    double* other = shared + CALIBRATION_COLUMNS * CALIBRATION_LANES;
    shared[threadIdx.x] = sum;
    other[threadIdx.x] = square;
    for (int half = CALIBRATION_LANES / 2; half; half /= 2) {
        SYNC();
        if (lane < half) {
            shared[threadIdx.x] += shared[threadIdx.x + half * CALIBRATION_COLUMNS];
            other[threadIdx.x] += other[threadIdx.x + half * CALIBRATION_COLUMNS];
        }
    }
    if (lane || column >= columns) return;
    sums[column] += shared[threadIdx.x];
    if (squares) squares[column] += other[threadIdx.x];
}

// Adds the products of a block of rows to the sums over all of them.
extern "C" __global__ void add_products(const float* __restrict__ products, double* __restrict__ sums, int numbers) {
    int at = ew_thread();
    if (at < numbers) sums[at] += products[at];
}
