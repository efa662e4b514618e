/* The recorder in C: `xybridd.client.recorder.PythonRecorder`, with the same interface and the same bytes.
 *
 * - A call converts its values, then reserves a number, then writes: between the last two nothing can fail. A value that
 *   cannot be converted is handed to `slow` with number 0.
 * - Values of the types float, int and bool are looked at here. For any other type the comparisons, min() and sum() of
 *   Python decide, as in PythonRecorder.
 * - An exception of a value is dropped and its call goes to `slow`. What is no Exception (KeyboardInterrupt) propagates.
 * - `known` remembers descriptors by the identity of the strings of model and version. An entry is immutable and published
 *   once. With a GIL a newer one replaces it; without, it stays, so that readers need no lock.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "xybridd_ring.h"

#define LONGEST_MS 1e10
#define KNOWN 64u

enum name { FIRST_STAT = 0, HARDWARE = 6, TARGET, MODEL_ID, VERSION, LATENCY_MS, NAMES };

#define STATS 6 /* numeric ones: the first names, in the order of their bits */

static const char *const NAME[NAMES] = {
    "input_tokens",   "output_tokens",    "tokens_per_second", "time_to_first_token_ms", "samples_per_second",
    "memory_peak_mb", "hardware_used",    "execution_target",  "model_id",               "version",
    "latency_ms",
};

typedef struct {
    PyObject *names[NAMES];
    PyObject *hardware, *targets;       /* dict: word to number */
    PyObject *hardware_words[3], *target_words[3]; /* the same words, interned, in the order of their numbers */
    PyObject *zero, *longest, *largest, *empty;
    PyObject *min, *sum;
} State;

typedef struct {
    PyObject *model, *version;
    uint64_t descriptor;
} Known;

typedef struct {
    PyObject_HEAD
    struct xr_writer writer;
    State *state;
    Known *known[KNOWN];
    Py_buffer slots, limit;
    PyObject *models, *slow;
} Recorder;

/* The arguments of one call. */
typedef struct {
    PyObject *model_id, *version, *latency_ms;
    PyObject *stats[STATS], *hardware, *target;
    PyObject *const *values; /* of all stats, by name */
    PyObject *kwnames;
    Py_ssize_t count; /* of stats, the unknown ones too */
    unsigned present;
    bool unknown;
} Call;

/* 1: as expected. 0: `slow` has to look at it, and no exception is set. -1: one is set that must propagate. */
typedef int Found;

static Found failed(void) {
    if (!PyErr_Occurred())
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyErr_Clear();
    return 0;
}

/* Models */

static inline unsigned spot(PyObject *model, PyObject *version) {
    return (unsigned)(((uintptr_t)model >> 4) * 31 + ((uintptr_t)version >> 4)) % KNOWN;
}

static void forget(Known *known) {
    if (known != NULL) {
        Py_DECREF(known->model);
        Py_DECREF(known->version);
        PyMem_Free(known);
    }
}

static void remember(Recorder *self, PyObject *model, PyObject *version, uint64_t descriptor) {
    if (!PyUnicode_CheckExact(model) || !PyUnicode_CheckExact(version))
        return; /* another object may change what it is equal to */
    Known **place = &self->known[spot(model, version)];
#ifdef Py_GIL_DISABLED
    if (__atomic_load_n(place, __ATOMIC_ACQUIRE) != NULL)
        return;
#endif
    Known *known = PyMem_Malloc(sizeof *known);
    if (known == NULL)
        return;
    *known = (Known){Py_NewRef(model), Py_NewRef(version), descriptor};
#ifdef Py_GIL_DISABLED
    Known *none = NULL;
    if (!__atomic_compare_exchange_n(place, &none, known, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        forget(known);
#else
    Known *old = *place;
    *place = known;
    forget(old); /* two strings: no code of anybody's runs */
#endif
}

static PyObject *looked_up(PyObject *dict, PyObject *key) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    PyDict_GetItemRef(dict, key, &value);
    return value;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

static Found find_in(PyObject *dict, PyObject *key, uint64_t *out) {
    PyObject *value = looked_up(dict, key);
    if (value == NULL)
        return failed();
    *out = PyLong_Check(value) ? PyLong_AsUnsignedLongLong(value) : 0;
    Py_DECREF(value);
    if (*out == (uint64_t)-1 && PyErr_Occurred())
        return failed();
    return *out != 0;
}

static Found find_model(Recorder *self, const Call *call, uint64_t *descriptor) {
    const Known *known = __atomic_load_n(&self->known[spot(call->model_id, call->version)], __ATOMIC_ACQUIRE);
    if (known != NULL && known->model == call->model_id && known->version == call->version) {
        *descriptor = known->descriptor;
        return 1;
    }
    PyObject *key = PyTuple_Pack(2, call->model_id, call->version);
    if (key == NULL)
        return failed();
    Found found = find_in(self->models, key, descriptor);
    Py_DECREF(key);
    if (found == 1)
        remember(self, call->model_id, call->version, *descriptor);
    return found;
}

/* Values */

/* A float, int or bool as a float. False, without an exception: it is something else, or too large. */
static inline bool plain(PyObject *value, double *out) {
    if (PyFloat_CheckExact(value)) {
        *out = PyFloat_AS_DOUBLE(value);
        return true;
    }
    if (!PyLong_CheckExact(value) && !PyBool_Check(value))
        return false;
    int overflow;
    long long whole = PyLong_AsLongLongAndOverflow(value, &overflow);
    *out = (double)whole;
    return overflow == 0;
}

static Found compare(PyObject *left, PyObject *right, int how) {
    int holds = PyObject_RichCompareBool(left, right, how);
    return holds < 0 ? failed() : holds;
}

/* Any object as a float that is in range. */
static Found convert(PyObject *value, double most, double *out) {
    *out = PyFloat_AsDouble(value);
    if (*out == -1 && PyErr_Occurred())
        return failed();
    return *out >= 0 && *out <= most;
}

static Found convert_latency(const State *state, PyObject *value, double *out) {
    if (plain(value, out))
        return *out >= 0 && *out <= LONGEST_MS;
    if (value == Py_None)
        return 0;
    Found found = compare(state->zero, value, Py_LE);
    if (found == 1)
        found = compare(value, state->longest, Py_LE);
    return found == 1 ? convert(value, LONGEST_MS, out) : found;
}

/* Whether min(values) >= 0 and sum(values) <= LARGEST, by Python's own arithmetic. */
static Found plausible(const State *state, const Call *call) {
    Found found = 0;
    PyObject *least = NULL, *total = NULL, *values = PyList_New(0);
    for (int i = 0; values != NULL && i < STATS; i++)
        if (call->stats[i] != NULL && PyList_Append(values, call->stats[i]) < 0)
            Py_CLEAR(values);
    if (values != NULL)
        least = PyObject_CallOneArg(state->min, values);
    if (least != NULL)
        found = compare(least, state->zero, Py_GE);
    if (found == 1) {
        total = PyObject_CallOneArg(state->sum, values);
        found = total == NULL ? failed() : compare(total, state->largest, Py_LE);
    } else if (least == NULL) {
        found = failed();
    }
    Py_XDECREF(values);
    Py_XDECREF(least);
    Py_XDECREF(total);
    return found;
}

static Found convert_tokens(PyObject *value, uint32_t *out) {
    PyObject *whole = PyNumber_Index(value);
    if (whole == NULL)
        return failed();
    unsigned long long number = PyLong_AsUnsignedLongLong(whole);
    Py_DECREF(whole);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return failed();
    *out = (uint32_t)number;
    return number <= UINT32_MAX;
}

static Found convert_word(PyObject *const words[3], PyObject *dict, PyObject *value, uint64_t *out) {
    for (unsigned i = 0; i < 3; i++)
        if (value == words[i]) {
            *out = i + 1;
            return 1;
        }
    return find_in(dict, value, out);
}

/* Whether all values are plain and 0 or more, and their sum so small that it is exact enough. Near the limit it matters
 * in what order, and how exactly, they are added. */
static bool ordinary(const Call *call, double values[STATS]) {
    double total = 0;
    for (unsigned rest = call->present; rest; rest &= rest - 1) {
        const int i = __builtin_ctz(rest);
        if (!plain(call->stats[i], &values[i]) || !(values[i] >= 0))
            return false;
        total += values[i];
    }
    return total < XR_LARGEST / 2;
}

static Found convert_stats(const State *state, const Call *call, uint64_t words[6], uint64_t *descriptor) {
    double values[STATS] = {0};
    uint32_t tokens[2] = {0, 0};
    uint64_t hardware = 0, target = 0;
    Found found;
    if (call->unknown || xr_first_stats(call->present) != call->present)
        return 0;
    if (call->hardware && (found = convert_word(state->hardware_words, state->hardware, call->hardware, &hardware)) != 1)
        return found;
    if (call->target && (found = convert_word(state->target_words, state->targets, call->target, &target)) != 1)
        return found;
    const bool converted = ordinary(call, values);
    if (!converted && (found = plausible(state, call)) != 1)
        return found;
    for (unsigned rest = call->present; rest; rest &= rest - 1) {
        const int i = __builtin_ctz(rest);
        if (i < 2)
            found = convert_tokens(call->stats[i], &tokens[i]);
        else
            found = converted ? 1 : convert(call->stats[i], XR_LARGEST, &values[i]);
        if (found != 1)
            return found;
    }
    const struct xr_stats stats = {
        .present = call->present, .input_tokens = tokens[0], .output_tokens = tokens[1],
        .tokens_per_second = values[2], .time_to_first_token_ms = values[3],
        .samples_per_second = values[4], .memory_peak_mb = values[5],
    };
    *descriptor |= (uint64_t)call->present << 48 | hardware << 40 | target << 44;
    xr_stat_words(&stats, words);
    return 1;
}

/* The call */

static int name_of(const State *state, PyObject *name) {
    for (int i = 0; i < NAMES; i++)
        if (name == state->names[i])
            return i;
    for (int i = 0; i < NAMES; i++)
        if (PyUnicode_CompareWithASCIIString(name, NAME[i]) == 0)
            return i;
    return NAMES;
}

static bool parse(const State *state, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, Call *call) {
    PyObject **const positional[3] = {&call->model_id, &call->version, &call->latency_ms};
    if (nargs > 3) {
        PyErr_Format(PyExc_TypeError, "record_inference() takes from 1 to 3 positional arguments but %zd were given",
                     nargs);
        return false;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        *positional[i] = args[i];
    call->values = args + nargs;
    call->kwnames = kwnames;
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *value = call->values[i];
        int name = name_of(state, PyTuple_GET_ITEM(kwnames, i));
        if (name >= MODEL_ID && name < NAMES) {
            if (*positional[name - MODEL_ID] != NULL) {
                PyErr_Format(PyExc_TypeError, "record_inference() got multiple values for argument '%s'", NAME[name]);
                return false;
            }
            *positional[name - MODEL_ID] = value;
            continue;
        }
        call->count++;
        if (name < STATS) {
            call->stats[name] = value;
            call->present |= 1u << name;
        } else if (name == HARDWARE) {
            call->hardware = value;
        } else if (name == TARGET) {
            call->target = value;
        } else {
            call->unknown = true;
        }
    }
    if (call->model_id == NULL) {
        PyErr_SetString(PyExc_TypeError, "record_inference() missing 1 required positional argument: 'model_id'");
        return false;
    }
    if (call->version == NULL)
        call->version = state->empty;
    if (call->latency_ms == NULL)
        call->latency_ms = Py_None;
    return true;
}

static PyObject *call_slow(Recorder *self, const Call *call, uint64_t number, double at_s) {
    PyObject *result = NULL, *reserved = NULL, *at = NULL, *stats = PyDict_New();
    bool complete = stats != NULL;
    for (Py_ssize_t i = 0; complete && call->count && i < PyTuple_GET_SIZE(call->kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(call->kwnames, i);
        int known = name_of(self->state, name);
        if (known < MODEL_ID || known == NAMES)
            complete = PyDict_SetItem(stats, name, call->values[i]) == 0;
    }
    if (complete && (reserved = PyLong_FromUnsignedLongLong(number)) && (at = PyFloat_FromDouble(at_s))) {
        PyObject *const args[] = {reserved, call->model_id, call->version, call->latency_ms, stats, at};
        result = PyObject_Vectorcall(self->slow, args, 6, NULL);
    }
    Py_XDECREF(stats);
    Py_XDECREF(reserved);
    Py_XDECREF(at);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    Py_RETURN_NONE;
}

static PyObject *record_inference(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    Recorder *self = (Recorder *)object;
    Call call = {0};
    uint64_t number = 0, descriptor = 0, words[6] = {0};
    double latency_ms = 0;
    const double at_s = xr_now_s();
    if (!parse(self->state, args, nargs, kwnames, &call))
        return NULL;
    if (self->slow == NULL)
        Py_RETURN_NONE; /* the garbage collector has cleared it */
    Found found = find_model(self, &call, &descriptor);
    if (found == 1)
        found = convert_latency(self->state, call.latency_ms, &latency_ms);
    if (found == 1 && call.count)
        found = convert_stats(self->state, &call, words, &descriptor);
    if (found < 0)
        return NULL;
    if (found == 1) {
        number = xr_reserve(&self->writer);
        if (xr_may_write(&self->writer, number)) {
            xr_write(&self->writer, number, latency_ms, at_s, descriptor, words, 0);
            Py_RETURN_NONE;
        }
    }
    return call_slow(self, &call, number, at_s);
}

static PyObject *reserve(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(xr_reserve(&((Recorder *)self)->writer));
}

static PyObject *reserved(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromUnsignedLongLong(xr_reserved(&((Recorder *)self)->writer));
}

/* An unsigned 64-bit number; OverflowError and TypeError are Python's own. */
static int to_u64(PyObject *object, void *out) {
    PyObject *whole = PyNumber_Index(object);
    if (whole == NULL)
        return 0;
    *(uint64_t *)out = PyLong_AsUnsignedLongLong(whole);
    Py_DECREF(whole);
    return !(*(uint64_t *)out == (uint64_t)-1 && PyErr_Occurred());
}

static PyObject *write_slot(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"number", "latency_ms", "at_s", "descriptor", "words", "call", NULL};
    uint64_t number, descriptor, call = 0, packed[3] = {0};
    double latency_ms, at_s;
    Py_buffer words = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&ddO&|y*O&:write", keywords, to_u64, &number, &latency_ms, &at_s,
                                     to_u64, &descriptor, &words, to_u64, &call)) {
        return NULL;
    }
    if (words.buf != NULL) {
        memcpy(packed, words.buf, words.len < 24 ? (size_t)words.len : 24);
        PyBuffer_Release(&words);
    }
    xr_write(&((Recorder *)self)->writer, number, latency_ms, at_s, descriptor, packed, call);
    Py_RETURN_NONE;
}

/* The type */

static bool is_usable(const Py_buffer *view, Py_ssize_t least, const char *name) {
    if (view->len >= least && (uintptr_t)view->buf % 8 == 0)
        return true;
    PyErr_Format(PyExc_ValueError, "%s: at least %zd bytes at a multiple of 8 are needed", name, least);
    return false;
}

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"slots", "count", "limit", "models", "slow", NULL};
    PyObject *slots, *limit, *models, *slow;
    Py_ssize_t count;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnOO!O:Recorder", keywords, &slots, &count, &limit, &PyDict_Type,
                                     &models, &slow))
        return NULL;
    if (count < 1 || (count & (count - 1)) || count > PY_SSIZE_T_MAX / XR_SLOT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "count: a power of two is needed");
        return NULL;
    }
    if (!PyCallable_Check(slow)) {
        PyErr_SetString(PyExc_TypeError, "slow: a callable is needed");
        return NULL;
    }
    Recorder *self = (Recorder *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = PyType_GetModuleState(type);
    if (self->state == NULL || PyObject_GetBuffer(slots, &self->slots, PyBUF_WRITABLE) < 0 ||
        PyObject_GetBuffer(limit, &self->limit, PyBUF_WRITABLE) < 0 ||
        !is_usable(&self->slots, count * (Py_ssize_t)XR_SLOT_BYTES, "slots") || !is_usable(&self->limit, 8, "limit")) {
        Py_DECREF(self);
        return NULL;
    }
    self->models = Py_NewRef(models);
    self->slow = Py_NewRef(slow);
    self->writer.slots = self->slots.buf;
    self->writer.mask = (uint64_t)count - 1;
    self->writer.limit = self->limit.buf;
    return (PyObject *)self;
}

static int recorder_traverse(PyObject *object, visitproc visit, void *arg) {
    Recorder *self = (Recorder *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->models);
    Py_VISIT(self->slow);
    /* Not the owners of the two buffers: Python before 3.11.8 and 3.12.2 clears a memoryview in a cycle whose buffer is
     * still in use, and crashes. Memory refers to nothing, so no cycle goes through them. */
    return 0;
}

static int recorder_clear(PyObject *object) {
    Recorder *self = (Recorder *)object;
    Py_CLEAR(self->slow);
    return 0; /* calls of finalizers still find models and memory */
}

static void recorder_dealloc(PyObject *object) {
    Recorder *self = (Recorder *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    for (unsigned i = 0; i < KNOWN; i++)
        forget(self->known[i]);
    Py_CLEAR(self->slow);
    Py_CLEAR(self->models);
    PyBuffer_Release(&self->slots);
    PyBuffer_Release(&self->limit);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"record_inference", (PyCFunction)(void (*)(void))record_inference, METH_FASTCALL | METH_KEYWORDS,
     "record_inference($self, /, model_id, version='', latency_ms=None, **stats)\n--\n\nWrite one inference."},
    {"reserve", reserve, METH_NOARGS, "reserve($self, /)\n--\n\nThe next slot number, from 1; atomic."},
    {"reserved", reserved, METH_NOARGS,
     "reserved($self, /)\n--\n\nThe last number that was reserved, 0 before the first."},
    {"write", (PyCFunction)(void (*)(void))write_slot, METH_VARARGS | METH_KEYWORDS,
     "write($self, /, number, latency_ms, at_s, descriptor, words=b'', call=0)\n--\n\n"
     "Fill a slot; its number is written last."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "Recorder(slots, count, limit, models, slow)\n--\n\nThe writer of one ring, in C."},
    {Py_tp_new, recorder_new},
    {Py_tp_methods, methods},
    {Py_tp_traverse, recorder_traverse},
    {Py_tp_clear, recorder_clear},
    {Py_tp_dealloc, recorder_dealloc},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "xybridd.client._recorder.Recorder",
    .basicsize = sizeof(Recorder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};

/* The module */

static PyObject *numbered(const char *const words[3], PyObject *interned[3]) {
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < 3; i++) {
        PyObject *number = PyLong_FromLong(i + 1);
        interned[i] = PyUnicode_InternFromString(words[i]);
        if (number == NULL || interned[i] == NULL || PyDict_SetItem(dict, interned[i], number) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(number);
    }
    return dict;
}

static int module_exec(PyObject *module) {
    static const char *const hardware[3] = {"cpu", "gpu", "npu"}, *const targets[3] = {"local", "cloud", "fallback"};
    State *state = PyModule_GetState(module);
    for (int i = 0; i < NAMES; i++)
        if ((state->names[i] = PyUnicode_InternFromString(NAME[i])) == NULL)
            return -1;
    PyObject *builtins = PyImport_ImportModule("builtins");
    if (builtins == NULL)
        return -1;
    state->min = PyObject_GetAttrString(builtins, "min");
    state->sum = PyObject_GetAttrString(builtins, "sum");
    Py_DECREF(builtins);
    state->hardware = numbered(hardware, state->hardware_words);
    state->targets = numbered(targets, state->target_words);
    state->zero = PyLong_FromLong(0);
    state->longest = PyFloat_FromDouble(LONGEST_MS);
    state->largest = PyLong_FromLongLong((long long)XR_LARGEST);
    state->empty = PyUnicode_InternFromString("");
    if (!state->min || !state->sum || !state->hardware || !state->targets || !state->zero || !state->longest ||
        !state->largest || !state->empty)
        return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    if (type == NULL)
        return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added;
}

/* Nothing of the state refers back to the module, so it stays whole until the module is freed: a recorder that is
 * garbage too may still be called by a finalizer. */
static void module_free(void *module) {
    State *state = PyModule_GetState(module);
    if (state == NULL)
        return;
    for (int i = 0; i < NAMES; i++)
        Py_CLEAR(state->names[i]);
    for (int i = 0; i < 3; i++) {
        Py_CLEAR(state->hardware_words[i]);
        Py_CLEAR(state->target_words[i]);
    }
    Py_CLEAR(state->hardware);
    Py_CLEAR(state->targets);
    Py_CLEAR(state->zero);
    Py_CLEAR(state->longest);
    Py_CLEAR(state->largest);
    Py_CLEAR(state->empty);
    Py_CLEAR(state->min);
    Py_CLEAR(state->sum);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

/* In a child that C forked, without telling Python: its lock, its imports and its threads are as the fork found them. */
static PyObject *after_fork_child(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyOS_AfterFork_Child();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"after_fork_child", after_fork_child, METH_NOARGS,
     "after_fork_child($module, /)\n--\n\nTell Python that this process was forked."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_methods = functions,
    .m_name = "xybridd.client._recorder",
    .m_doc = "The recorder in C; `xybridd.client.recorder` has the one in Python.",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__recorder(void) { return PyModuleDef_Init(&definition); }
