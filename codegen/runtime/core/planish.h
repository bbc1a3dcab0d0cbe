/* The C interface of models compiled by Planish. Types only: each artifact declares its one function in a header of
 * its own, `const planish_model *planish_model_NAME(void)`. It never fails, may be called from any thread, and
 * returns a table that stays valid for as long as the artifact is loaded.
 *
 * Functions that return planish_status write a message that ends with a zero byte into `error`, where that is not
 * NULL and `error_len` is above 0. Nothing is ever printed. A session is used by one thread at a time; a pool may be
 * shared by any number of sessions, of any models, in any threads.
 */
#ifndef PLANISH_H
#define PLANISH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLANISH_ABI 1

typedef int32_t planish_status;
enum {
    PLANISH_OK = 0,
    PLANISH_INPUT = 1,   /* an input has a wrong type, shape or value, or is missing */
    PLANISH_DATA = 2,    /* a value in the data made an operation impossible */
    PLANISH_STEPS = 3,   /* max_steps is spent */
    PLANISH_MEMORY = 4,  /* memory cannot be had, or is above max_memory */
    PLANISH_BUFFER = 5,  /* a buffer is too small */
    PLANISH_MACHINE = 6, /* this machine cannot run the code */
    PLANISH_PROGRAM = 7  /* the artifact is damaged */
};

/* Element types are numbered as in ONNX TensorProto.DataType: 1 float, 7 int64, 10 float16, 11 double ...
 * Types below 8 bits, and bool, take one byte an element. */

typedef struct planish_model planish_model;
typedef struct planish_session planish_session;
typedef struct planish_pool planish_pool;

/* Type and shape of a tensor. dtype 0: none, for a state that the session keeps. */
typedef struct {
    int32_t dtype;
    uint32_t rank;
    const int64_t *dims;
} planish_shape;

/* A dense row-major tensor without padding. */
typedef struct {
    void *data;
    size_t bytes;
} planish_buffer;

/* How a session behaves. Zero in a field means the default. */
typedef struct {
    uint32_t size;       /* sizeof(planish_options) */
    int32_t threads;     /* without a pool: number of threads; default 1 */
    planish_pool *pool;  /* must outlive the session */
    uint64_t max_steps;  /* loop iterations a run may do */
    uint64_t max_memory; /* bytes the memory of a session, or one tensor in it, may take */
} planish_options;

struct planish_model {
    uint32_t abi;  /* PLANISH_ABI */
    uint32_t size; /* sizeof(planish_model) as the artifact knows it; later versions append */
    const char *name;
    uint32_t inputs;
    uint32_t outputs;

    /* JSON (schema planish.describe) of at most `capacity` bytes with its final zero byte. Returns the bytes it
     * takes; `out` may be NULL to ask. */
    size_t (*describe)(const planish_model *model, char *out, size_t capacity);

    /* A pool of `threads` threads, the caller's included; 0: as many as the process may use cores. NULL on failure. */
    planish_pool *(*pool_create)(int32_t threads);
    void (*pool_destroy)(planish_pool *pool);

    /* A session; `options` may be NULL. */
    planish_status (*create)(const planish_model *model, const planish_options *options, planish_session **session,
                             char *error, size_t error_len);

    /* Binds types and shapes of the inputs, one for each, in order. Everything is checked before memory is taken. */
    planish_status (*bind)(planish_session *session, const planish_shape *inputs, size_t count, char *error,
                           size_t error_len);

    /* The shape of an output. Known after bind, or where it depends on data after run: PLANISH_INPUT until then.
     * dims are valid until the next bind or run. */
    planish_status (*output_shape)(const planish_session *session, uint32_t output, planish_shape *shape);

    /* Runs once. inputs[i].data may be NULL for a state that the session keeps. outputs[i].data may be NULL: then the
     * session keeps the output, and data and bytes are set to it until the next bind or run. Otherwise bytes says how
     * large the buffer is, and is set to what was written. */
    planish_status (*run)(planish_session *session, const planish_buffer *inputs, size_t input_count,
                          planish_buffer *outputs, size_t output_count, char *error, size_t error_len);

    /* Feeds an output of each run to an input of the next, beside the pairs the model declares. Before bind. */
    planish_status (*add_state)(planish_session *session, uint32_t output, uint32_t input, char *error,
                                size_t error_len);

    /* Makes the state zero again. */
    void (*reset)(planish_session *session);

    void (*destroy)(planish_session *session);
};

#ifdef __cplusplus
}
#endif
#endif
