/* Two models in one program. Each is called from four threads at the same time, and all eight share one pool.
 *
 * The folder of a model, `one` or `two` below the working folder, holds input_I.txt (element type, rank, dims) and
 * input_I.raw. Every thread writes thread_T_output_O.raw there; the runs of a thread must give the same bytes. */
#include "one.h"
#include "two.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, RUNS = 20, PORTS = 8, RANK = 8 };

static planish_pool *pool;
static pthread_barrier_t start;

typedef struct {
    const planish_model *model;
    const char *folder;
    int number;
    char error[400];
} job;

static int failed(job *j, const char *what) {
    size_t n = strlen(j->error);
    snprintf(j->error + n, sizeof j->error - n, " [%s]", what);
    return 1;
}

static int read_input(job *j, unsigned i, planish_shape *shape, planish_buffer *buffer, int64_t *dims) {
    char path[300];
    snprintf(path, sizeof path, "%s/input_%u.txt", j->folder, i);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%d %u", &shape->dtype, &shape->rank) != 2 || shape->rank > RANK) return failed(j, path);
    for (unsigned k = 0; k < shape->rank; k++) {
        long long d;
        if (fscanf(f, "%lld", &d) != 1) return failed(j, path);
        dims[k] = d;
    }
    shape->dims = dims;
    fclose(f);
    snprintf(path, sizeof path, "%s/input_%u.raw", j->folder, i);
    f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) return failed(j, path);
    buffer->bytes = (size_t)ftell(f);
    buffer->data = malloc(buffer->bytes + 1);
    rewind(f);
    if (!buffer->data || fread(buffer->data, 1, buffer->bytes, f) != buffer->bytes) return failed(j, path);
    fclose(f);
    return 0;
}

static int infer(job *j) {
    const planish_model *m = j->model;
    planish_options options = {sizeof options, 0, pool, 0, 0};
    planish_session *s;
    planish_shape shapes[PORTS];
    int64_t dims[PORTS][RANK];
    planish_buffer in[PORTS], out[PORTS], first[PORTS];
    if (m->abi != PLANISH_ABI || m->inputs > PORTS || m->outputs > PORTS) return failed(j, "table");
    for (unsigned i = 0; i < m->inputs; i++)
        if (read_input(j, i, &shapes[i], &in[i], dims[i])) return 1;
    if (m->create(m, &options, &s, j->error, sizeof j->error)) return failed(j, "create");
    if (m->bind(s, shapes, m->inputs, j->error, sizeof j->error)) return failed(j, "bind");
    for (int run = 0; run < RUNS; run++) {
        for (unsigned o = 0; o < m->outputs; o++) out[o] = (planish_buffer){NULL, 0};
        if (m->run(s, in, m->inputs, out, m->outputs, j->error, sizeof j->error)) return failed(j, "run");
        for (unsigned o = 0; o < m->outputs; o++) {
            if (run == 0) {
                first[o].bytes = out[o].bytes;
                first[o].data = malloc(out[o].bytes + 1);
                if (!first[o].data) return failed(j, "memory");
                memcpy(first[o].data, out[o].data, out[o].bytes);
            } else if (first[o].bytes != out[o].bytes || memcmp(first[o].data, out[o].data, out[o].bytes)) {
                return failed(j, "runs differ");
            }
        }
    }
    for (unsigned o = 0; o < m->outputs; o++) {
        char path[300];
        snprintf(path, sizeof path, "%s/thread_%d_output_%u.raw", j->folder, j->number, o);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(first[o].data, 1, first[o].bytes, f) != first[o].bytes || fclose(f)) return failed(j, path);
        free(first[o].data);
    }
    for (unsigned i = 0; i < m->inputs; i++) free(in[i].data);
    m->destroy(s);
    return 0;
}

static void *thread(void *arg) {
    pthread_barrier_wait(&start);
    return infer(arg) ? arg : NULL;
}

int main(void) {
    static job jobs[2 * THREADS];
    pthread_t threads[2 * THREADS];
    int bad = 0;
    pool = planish_model_one()->pool_create(2);
    if (!pool || pthread_barrier_init(&start, NULL, 2 * THREADS)) return 2;
    for (int t = 0; t < 2 * THREADS; t++) {
        jobs[t] = t % 2 ? (job){planish_model_two(), "two", t / 2, ""} : (job){planish_model_one(), "one", t / 2, ""};
        if (pthread_create(&threads[t], NULL, thread, &jobs[t])) return 2;
    }
    for (int t = 0; t < 2 * THREADS; t++) {
        void *result;
        pthread_join(threads[t], &result);
        if (result) {
            fprintf(stderr, "%s, thread %d: %s\n", jobs[t].folder, jobs[t].number, jobs[t].error);
            bad = 1;
        }
    }
    planish_model_two()->pool_destroy(pool);
    return bad;
}
