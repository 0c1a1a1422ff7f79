// What training minimises, with its gradient by the logits. Each example is shared by a group of lanes of a warp.

template <class T> struct ObjectiveOf {
    const T* logits;
    const void* truths;    // a class each, or a float for each output
    const float* teacher;  // null, or as many
    T* gradient;
    int examples, stride, outputs, group, kind;  // 0: classes, 1: flags, 2: numbers
    float smoothing, temperature, weight;
};
struct ObjectiveResult { float loss; u32 right; };

__device__ inline float objective_softplus(float x) { return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))); }
__device__ __noinline__ double objective_softplus(double x) { return fmax(x, 0.) + log1p(exp(-fabs(x))); }
__device__ inline float objective_sigmoid(float x) {
    float small = expf(-fabsf(x));
    return x < 0.f ? small / (1.f + small) : 1.f / (1.f + small);
}
__device__ __noinline__ double objective_sigmoid(double x) {
    double small = exp(-fabs(x));
    return x < 0. ? small / (1. + small) : 1. / (1. + small);
}

// Goes through the outputs that a lane has: `body` sees the output `c`, its logit `x` and the number `result` that is stored. Number by
// number: there is little to read, and much to compute.
#define OBJECTIVE_LOOP(writes, body)                                        \
    _Pragma("unroll 1")                                                     \
    for (int c = lane; c < (writes ? mine : used); c += o.group) {          \
        float x = float(logits[c]), result = 0.f;                           \
        if (c < used) { body }                                              \
        if (writes) gradient[c] = T(result);                                \
    }

template <class T> __device__ ObjectiveResult objective_classes(const ObjectiveOf<T>& o, int example, int lane, float scale) {
    const float lowest = __uint_as_float(0xff800000u);
    int mine = example < o.examples ? o.stride : 0, used = example < o.examples ? o.outputs : 0;
    const T* logits = o.logits + size_t(example) * o.stride;
    T* gradient = o.gradient + size_t(example) * o.stride;
    bool taught = o.teacher && o.weight > 0.f;
    float hard = o.teacher ? 1.f - o.weight : 1.f;
    const float* teacher = o.teacher + size_t(example) * o.outputs;
    // The highest logit, the first among equals. A NaN is the highest only where it comes first, as in a loop from there on.
    float most = lowest, most_of_teacher = lowest, best = lowest;
    int where = 1 << 30;
    OBJECTIVE_LOOP(false, {
        most = fmaxf(most, x);
        float rank = x == x ? x : c == 0 ? -lowest : lowest;
        if (rank > best || (rank == best && c < where)) { best = rank; where = c; }
        if (taught) most_of_teacher = fmaxf(most_of_teacher, teacher[c]);
    })
    for (int mask = o.group / 2; mask; mask >>= 1) {
        most = fmaxf(most, SHFL_XOR(most, mask));
        most_of_teacher = fmaxf(most_of_teacher, SHFL_XOR(most_of_teacher, mask));
        float other = SHFL_XOR(best, mask);
        int place = SHFL_XOR(where, mask);
        if (other > best || (other == best && place < where)) { best = other; where = place; }
    }
    float sum = 0.f, sum_student = 0.f, sum_teacher = 0.f, off = 0.f, cool = 1.f / o.temperature;
    OBJECTIVE_LOOP(false, {
        sum += expf(x - most);
        off += x - most;
        if (taught) {
            sum_student += expf((x - most) * cool);
            sum_teacher += expf((teacher[c] - most_of_teacher) * cool);
        }
    })
    sum = ew_group_sum(sum, o.group);
    off = ew_group_sum(off, o.group);
    sum_student = ew_group_sum(sum_student, o.group);
    sum_teacher = ew_group_sum(sum_teacher, o.group);
    float log_sum = logf(sum), log_student = logf(sum_student), log_teacher = logf(sum_teacher);
    int label = mine ? int(static_cast<const u32*>(o.truths)[example]) : 0;
    float share = o.smoothing / o.outputs, divergence = 0.f;
    OBJECTIVE_LOOP(true, {
        float target = share + (c == label ? 1.f - o.smoothing : 0.f);
        if (hard > 0.f) result = hard * scale * (expf(x - most - log_sum) - target);
        if (taught) {
            float log_p = (x - most) * cool - log_student;
            float wanted = expf((teacher[c] - most_of_teacher) * cool - log_teacher);
            divergence -= wanted * log_p;
            result += scale * o.weight * o.temperature * (expf(log_p) - wanted);
        }
    })
    divergence = ew_group_sum(divergence, o.group);
    ObjectiveResult result;
    result.right = where == label;
    result.loss = 0.f;
    if (mine && hard > 0.f) {
        float loss = (1.f - o.smoothing) * (log_sum - (float(logits[label]) - most));
        if (o.smoothing > 0.f) loss += share * (o.outputs * log_sum - off);
        result.loss = hard * loss;
    }
    if (taught) result.loss += o.weight * o.temperature * o.temperature * divergence;
    return result;
}

template <class T> __device__ ObjectiveResult objective_flags(const ObjectiveOf<T>& o, int example, int lane, float scale) {
    int mine = example < o.examples ? o.stride : 0, used = example < o.examples ? o.outputs : 0;
    const T* logits = o.logits + size_t(example) * o.stride;
    T* gradient = o.gradient + size_t(example) * o.stride;
    bool taught = o.teacher && o.weight > 0.f;
    float hard = o.teacher ? 1.f - o.weight : 1.f, share = scale / o.outputs, loss = 0.f, divergence = 0.f, wrong = 0.f;
    const float* teacher = o.teacher + size_t(example) * o.outputs;
    const float* flags = static_cast<const float*>(o.truths) + size_t(example) * o.outputs;
    OBJECTIVE_LOOP(true, {
        float flag = flags[c];
        wrong += (x > 0.f) != (flag > 0.5f);
        if (hard > 0.f) {
            loss += objective_softplus(x) - flag * x;
            result = hard * share * (objective_sigmoid(x) - flag);
        }
        if (taught) {
            // Differences of numbers that are close to each other.
            double s = double(x) / o.temperature;
            double t = double(teacher[c]) / o.temperature;
            double target = objective_sigmoid(t);
            divergence += float(objective_softplus(s) - objective_softplus(t) + target * (t - s));
            result += share * o.weight * o.temperature * float(objective_sigmoid(s) - target);
        }
    })
    loss = ew_group_sum(loss, o.group);
    divergence = ew_group_sum(divergence, o.group);
    ObjectiveResult result;
    result.right = ew_group_sum(wrong, o.group) == 0.f;
    result.loss = (hard > 0.f ? hard * loss : 0.f) + (taught ? o.weight * o.temperature * o.temperature * divergence : 0.f);
    result.loss /= o.outputs;
    return result;
}

template <class T> __device__ ObjectiveResult objective_numbers(const ObjectiveOf<T>& o, int example, int lane, float scale) {
    int mine = example < o.examples ? o.stride : 0, used = example < o.examples ? o.outputs : 0;
    const T* logits = o.logits + size_t(example) * o.stride;
    T* gradient = o.gradient + size_t(example) * o.stride;
    bool taught = o.teacher && o.weight > 0.f;
    float hard = o.teacher ? 1.f - o.weight : 1.f, share = 2.f * scale / o.outputs, loss = 0.f;
    const float* teacher = o.teacher + size_t(example) * o.outputs;
    const float* numbers = static_cast<const float*>(o.truths) + size_t(example) * o.outputs;
    OBJECTIVE_LOOP(true, {
        if (hard > 0.f) {
            float distance = x - numbers[c];
            loss += hard * distance * distance;
            result = hard * share * distance;
        }
        if (taught) {
            float distance = x - teacher[c];
            loss += o.weight * distance * distance;
            result += o.weight * share * distance;
        }
    })
    ObjectiveResult result;
    result.right = 0;
    result.loss = ew_group_sum(loss, o.group) / o.outputs;
    return result;
}

template <class T> __device__ inline ObjectiveResult objective_example(const ObjectiveOf<T>& o, int example, int lane) {
    float scale = 1.f / o.examples;
    if (o.kind == 0) return objective_classes(o, example, lane, scale);
    if (o.kind == 1) return objective_flags(o, example, lane, scale);
    return objective_numbers(o, example, lane, scale);
}

// The mean loss and how many are right, of all threads' parts, to a result of 16 bytes: a double and two words, the second of which
// says whether the mean is no finite number.
__device__ inline void objective_write(double loss, u32 right, int examples, const u32* scalars, u32* results) {
    SHARED(double, losses, 32);
    SHARED(u32, rights, 32);
    for (int mask = 16; mask; mask >>= 1) {
        loss += SHFL_XOR(loss, mask);
        right += SHFL_XOR(right, mask);
    }
    if (threadIdx.x % 32 == 0) {
        losses[threadIdx.x / 32] = loss;
        rights[threadIdx.x / 32] = right;
    }
    SYNC();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < int(blockDim.x / 32); ++w) {
        loss += losses[w];
        right += rights[w];
    }
    double mean = loss / examples;
    u64 bits = u64(__double_as_longlong(mean));
    u32* to = results + 4 * scalars[5];
    to[0] = u32(bits);
    to[1] = u32(bits >> 32);
    to[2] = right;
    to[3] = mean - mean != 0.;
}

#define OBJECTIVE_PARAMETERS                                                                                                            \
    const T *logits, const void *truths, const float *teacher, T *gradient, int examples, int stride, int outputs, int group, int kind, \
        float smoothing, float temperature, float weight
#define OBJECTIVE_ARGUMENTS logits, truths, teacher, gradient, examples, stride, outputs, group, kind, smoothing, temperature, weight

// A group each.
template <class T> __device__ void objective(OBJECTIVE_PARAMETERS, float* losses, u32* rights) {
    ObjectiveOf<T> o = {OBJECTIVE_ARGUMENTS};
    int example = ew_thread() / group, lane = threadIdx.x % group;
    ObjectiveResult result = objective_example(o, example, lane);
    if (lane == 0 && example < examples) {
        losses[example] = result.loss;
        rights[example] = result.right;
    }
}
KERNEL(objective, (OBJECTIVE_PARAMETERS, float* losses, u32* rights), (OBJECTIVE_ARGUMENTS, losses, rights))

// All of a small batch in one block, with the mean.
template <class T> __device__ void objective_whole(OBJECTIVE_PARAMETERS, float* losses, u32* rights, const u32* scalars, u32* results) {
    ObjectiveOf<T> o = {OBJECTIVE_ARGUMENTS};
    int lane = threadIdx.x % group, groups = blockDim.x / group;
    double loss = 0.;
    u32 right = 0;
    for (int first = 0; first < examples; first += groups) {
        int example = first + threadIdx.x / group;
        ObjectiveResult result = objective_example(o, example, lane);
        if (lane == 0 && example < examples) {
            losses[example] = result.loss;
            rights[example] = result.right;
            loss += result.loss;
            right += result.right;
        }
    }
    objective_write(loss, right, examples, scalars, results);
}
KERNEL(objective_whole, (OBJECTIVE_PARAMETERS, float* losses, u32* rights, const u32* scalars, u32* results),
       (OBJECTIVE_ARGUMENTS, losses, rights, scalars, results))

extern "C" __global__ void objective_finish(const float* __restrict__ losses, const u32* __restrict__ rights, int examples, const u32* __restrict__ scalars,
                                            u32* results) {
    double loss = 0.;
    u32 right = 0;
    for (int example = threadIdx.x; example < examples; example += blockDim.x) {
        loss += losses[example];
        right += rights[example];
    }
    objective_write(loss, right, examples, scalars, results);
}
