/* One float32 sample times the weight of a regular sparse layer: y = W x + b, where only existing weights are stored.

   A single sample reads every weight once, so memory sets the pace and all else is overhead. Tensors come and go by
   DLPack's exchange table (dmlc.github.io/dlpack, version 1): one call gives address, type, device, shape and strides,
   so each call checks all that it relies on and keeps no address. What does not fit gives None: torch does it then. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define AVX512 __attribute__((target("avx512f")))
#endif

/* ---- DLPack 1: the part that is used */

enum { CPU = 1, INT = 0, FLOAT = 2, MOST_AXES = 8 };

typedef struct {
    uint32_t major, minor;
} Version;

typedef struct {
    void *data;
    struct {
        int32_t type, number;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} View;

typedef struct Managed {
    Version version;
    void *context;
    void (*deleter)(struct Managed *);
    uint64_t flags;
    View view;
} Managed;

typedef struct {
    Version version;
    void *previous;
    void *allocate;
    void *managed_from_object;
    int (*object_from_managed)(Managed *taken, void **object);
    int (*view_from_object)(void *object, View *view);
    void *current_stream;
} Exchange;

/* ---- the product */

enum {
    ROWS = 4,             /* outputs at a time: as many streams of weights, and sums that do not wait for each other */
    LANES = 16,           /* partial sums of an output: the widest register; narrower ones take turns */
    TAKEN = 1024,         /* inputs gathered at a time; they stay in the first cache */
    LONGEST = 8 * TAKEN,  /* a longer fan-in is torch's: its call is no longer what costs */
    AHEAD = 8192,         /* bytes: the next page too, where the processor's own prefetch stops */
    ALIGNED = 64,         /* bytes: as torch aligns its arrays */
    LONG = 1 << 18        /* from so many weights on, other threads run meanwhile */
};

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float Half __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef float Quarter __attribute__((vector_size(LANES), aligned(4), may_alias));

typedef struct {
    const float *x, *values, *bias;
    const int32_t *index, *order;
    float *y;
    int64_t n_in, tiles, tile, fan_in;
} Product;

typedef int Gather(const float *x, uint32_t n_in, const int32_t *index, int64_t count, float *taken);

#define INLINE static inline __attribute__((always_inline))

INLINE float total(const Lanes *lanes) {
    const Half *halves = (const Half *)lanes;
    const Half half = halves[0] + halves[1];
    const Quarter *quarters = (const Quarter *)&half;
    const Quarter quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* The sums of `rows` outputs; `step` leads from the inputs of one to those of the next, 0 if they share them. */
INLINE void dots(const float *values, const float *taken, int64_t step, int64_t fan_in, int rows, float *sums) {
    Lanes lanes[ROWS] = {{0}};
    int64_t k = 0;
    for (; k + LANES <= fan_in; k += LANES)
        for (int r = 0; r < rows; r++) {
            const float *row = values + r * fan_in + k;
            __builtin_prefetch((const char *)row + AHEAD, 0, 2);
            lanes[r] += *(const Lanes *)row * *(const Lanes *)(taken + r * step + k);
        }
    for (int r = 0; r < rows; r++) {
        sums[r] = total(lanes + r);
        for (int64_t rest = k; rest < fan_in; rest++) sums[r] += values[r * fan_in + rest] * taken[r * step + rest];
    }
}

/* Returns -1 if the index, or the order of the outputs, leads out of its array. */
INLINE int multiply(const Product *p, Gather *gather) {
    float taken[LONGEST], sums[ROWS];
    const int64_t fan_in = p->fan_in, n_out = p->tiles * p->tile, fine = p->tile == 1;
    int64_t made = 0, several = fan_in < TAKEN ? TAKEN / fan_in : 1;
    for (int64_t first = 0; first < p->tiles; first += several) {
        if (several > p->tiles - first) several = p->tiles - first;
        if (gather(p->x, (uint32_t)p->n_in, p->index + first * fan_in, several * fan_in, taken)) return -1;
        for (int64_t t = 0; t < (fine ? 1 : several); t++)
            for (int64_t o = 0, rows, all = fine ? several : p->tile; o < all; o += rows) {
                const float *values = p->values + made * fan_in;
                const float *inputs = taken + (fine ? o : t) * fan_in;
                rows = all - o < ROWS ? 1 : ROWS;
                if (rows == 1)
                    dots(values, inputs, 0, fan_in, 1, sums);
                else if (fine)
                    dots(values, inputs, fan_in, fan_in, ROWS, sums);
                else
                    dots(values, inputs, 0, fan_in, ROWS, sums);
                for (int r = 0; r < rows; r++, made++) {
                    const int64_t place = p->order ? p->order[made] : made;
                    if ((uint64_t)place >= (uint64_t)n_out) return -1;
                    p->y[place] = p->bias ? sums[r] + p->bias[place] : sums[r];
                }
            }
    }
    return 0;
}

INLINE int gather_one_by_one(const float *x, uint32_t n_in, const int32_t *index, int64_t count, float *taken) {
    uint32_t beyond = 0;
    for (int64_t k = 0; k < count; k++) beyond |= (uint32_t)index[k] >= n_in;
    if (beyond) return -1;
    for (int64_t k = 0; k < count; k++) taken[k] = x[index[k]];
    return 0;
}

static int multiply_anywhere(const Product *p) { return multiply(p, gather_one_by_one); }

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static int multiply_avx2(const Product *p) {
    return multiply(p, gather_one_by_one);
}

AVX512 INLINE int gather_avx512(
    const float *x, uint32_t n_in, const int32_t *index, int64_t count, float *taken) {
    const __m512i size = _mm512_set1_epi32((int)n_in);
    __mmask16 beyond = 0;
    for (int64_t k = 0; k < count; k += 16) {
        const __mmask16 there = count - k < 16 ? (__mmask16)((1 << (count - k)) - 1) : 0xffff;
        const __m512i at = _mm512_maskz_loadu_epi32(there, index + k);
        const __mmask16 within = _mm512_mask_cmplt_epu32_mask(there, at, size);
        beyond |= within ^ there;
        __builtin_prefetch((const char *)(index + k) + AHEAD, 0, 2);
        _mm512_mask_storeu_ps(taken + k, there, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), within, at, x, 4));
    }
    return beyond ? -1 : 0;
}

AVX512 static int multiply_avx512(const Product *p) { return multiply(p, gather_avx512); }
#endif

static int multiply_here(const Product *p) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return multiply_avx512(p);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return multiply_avx2(p);
#endif
    return multiply_anywhere(p);
}

/* ---- Python */

/* True if `object` is a contiguous array of 32 bits on the CPU, of `ndim` axes (0: any number). */
static int viewed(const Exchange *exchange, PyObject *object, int code, int ndim, View *view) {
    int64_t step = 1;
    if (exchange->view_from_object(object, view)) {
        PyErr_Clear(); /* no memory of its own: a transform's, a sparse one's */
        return 0;
    }
    if (view->device.type != CPU || view->dtype.code != code || view->dtype.bits != 32 || view->dtype.lanes != 1) return 0;
    if (view->ndim < 1 || view->ndim > MOST_AXES || (ndim && view->ndim != ndim)) return 0;
    if (!view->data) return 0;
    if (view->strides && view->strides[view->ndim - 1] != 1) return 0; /* a lone imaginary part may be kept negated */
    for (int axis = view->ndim - 1; axis >= 0; step *= view->shape[axis--])
        if (view->strides && view->shape[axis] != 1 && view->strides[axis] != step) return 0;
    view->data = (char *)view->data + view->byte_offset;
    return step > 0;
}

typedef struct {
    Managed managed;
    int64_t shape[MOST_AXES], strides[MOST_AXES];
} Output; /* its values follow it, in the same piece of memory */

static void release(Managed *managed) { free(managed); }

/* An array shaped like `x` but for the last axis. To make it here is cheaper than to have torch make two of it. */
static Output *output_like(const View *x, int64_t n_out) {
    const size_t head = (sizeof(Output) + ALIGNED - 1) / ALIGNED * ALIGNED;
    const size_t values = ((size_t)n_out * sizeof(float) + ALIGNED - 1) / ALIGNED * ALIGNED;
    Output *made = aligned_alloc(ALIGNED, head + values);
    if (!made) return NULL;
    const int last = x->ndim - 1;
    for (int axis = 0; axis <= last; axis++) {
        made->shape[axis] = axis == last ? n_out : 1;
        made->strides[axis] = axis == last ? 1 : n_out;
    }
    made->managed = (Managed){.version = {1, 0}, .deleter = release, .view = {
        .data = (char *)made + head, .device = {CPU, 0}, .ndim = x->ndim, .dtype = {FLOAT, 32, 1},
        .shape = made->shape, .strides = made->strides}};
    return made;
}

static PyObject *product(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    View x, values, index, bias = {0}, order = {0};
    (void)module;
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "expected the exchange table, x, n_in, values, index, bias, order");
        return NULL;
    }
    const Exchange *exchange = PyCapsule_GetPointer(args[0], "dlpack_exchange_api");
    if (!exchange) return NULL;
    if (exchange->version.major != 1 || !exchange->view_from_object) Py_RETURN_NONE;
    const long n_in = PyLong_AsLong(args[2]);
    if (n_in == -1 && PyErr_Occurred()) return NULL;

    if (!viewed(exchange, args[1], FLOAT, 0, &x) || !viewed(exchange, args[3], FLOAT, 3, &values)) Py_RETURN_NONE;
    if (!viewed(exchange, args[4], INT, 2, &index)) Py_RETURN_NONE;
    for (int axis = 0; axis < x.ndim; axis++)
        if (x.shape[axis] != (axis == x.ndim - 1 ? n_in : 1)) Py_RETURN_NONE;
    const int64_t n_out = values.shape[0] * values.shape[1], fan_in = values.shape[2];
    if (index.shape[0] != values.shape[0] || index.shape[1] != fan_in) Py_RETURN_NONE;
    if (fan_in > LONGEST || n_in > INT32_MAX) Py_RETURN_NONE;
    if (args[5] != Py_None && (!viewed(exchange, args[5], FLOAT, 1, &bias) || bias.shape[0] != n_out)) Py_RETURN_NONE;
    if (args[6] != Py_None && (!viewed(exchange, args[6], INT, 1, &order) || order.shape[0] != n_out)) Py_RETURN_NONE;

    Output *made = output_like(&x, n_out);
    if (!made) return PyErr_NoMemory();
    const Product task = {.x = x.data, .values = values.data, .bias = bias.data, .index = index.data,
                          .order = order.data, .y = made->managed.view.data,
                          .n_in = n_in, .tiles = values.shape[0], .tile = values.shape[1], .fan_in = fan_in};
    int failed;
    if (n_out * fan_in < LONG)
        failed = multiply_here(&task);
    else {
        Py_BEGIN_ALLOW_THREADS;
        failed = multiply_here(&task);
        Py_END_ALLOW_THREADS;
    }
    if (failed) {
        free(made);
        PyErr_SetString(PyExc_IndexError, "the layer's index or order of outputs leads out of range");
        return NULL;
    }
    void *y = NULL;
    return exchange->object_from_managed(&made->managed, &y) ? NULL : (PyObject *)y;
}

static PyMethodDef methods[] = {
    {"product", (PyCFunction)(void (*)(void))product, METH_FASTCALL,
     "product(exchange, x, n_in, values, index, bias, order)\n--\n\nThe layer's outputs, or None: not a case for this."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_row", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__row(void) { return PyModuleDef_Init(&definition); }
