/* A detector of speech fed with a stream: `stream CHUNKS SAMPLES_A_CHUNK OUTPUTS TIMES` reads the chunks (floats),
 * keeps the state in the session, and writes for every chunk the probability and the state after it, and to TIMES the
 * nanoseconds of each run. The state starts as zero: it is never given. */
#include "vad.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char error[400];

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, error);
    return 1;
}

static int port(const planish_model *m, const char *list, const char *name) {
    /* Position of a name in a list of ports of the description. */
    size_t n = m->describe(m, NULL, 0);
    char *text = malloc(n), key[100];
    m->describe(m, text, n);
    const char *at = strstr(text, list), *end = at ? strstr(at, "}]") : NULL;
    snprintf(key, sizeof key, "\"name\":\"%s\"", name);
    int found = -1, k = 0;
    for (; at && end && (at = strstr(at, "\"name\":")) && at < end; at++, k++)
        if (!strncmp(at, key, strlen(key))) found = k;
    free(text);
    return found;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    const planish_model *m = planish_model_vad();
    int input = port(m, "\"inputs\"", "input"), state = port(m, "\"inputs\"", "state"), rate = port(m, "\"inputs\"", "sr");
    int probability = port(m, "\"outputs\"", "output"), next = port(m, "\"outputs\"", "stateN");
    if (m->inputs != 3 || m->outputs != 2 || input < 0 || state < 0 || rate < 0 || probability < 0 || next < 0)
        return fail("ports");
    planish_session *s;
    if (m->create(m, NULL, &s, error, sizeof error)) return fail("create");
    if (m->add_state(s, (uint32_t)next, (uint32_t)state, error, sizeof error)) return fail("state");
    int64_t dims[2] = {1, atoi(argv[2])}, hertz = 16000;
    size_t chunk = (size_t)dims[1] * sizeof(float);
    float *samples = malloc(chunk);
    planish_shape shapes[3];
    planish_buffer in[3], out[2];
    shapes[input] = (planish_shape){1, 2, dims};
    shapes[rate] = (planish_shape){7, 0, NULL};
    shapes[state] = (planish_shape){0, 0, NULL};
    in[input] = (planish_buffer){samples, chunk};
    in[rate] = (planish_buffer){&hertz, sizeof hertz};
    in[state] = (planish_buffer){NULL, 0};
    if (m->bind(s, shapes, 3, error, sizeof error)) return fail("bind");
    FILE *from = fopen(argv[1], "rb"), *to = fopen(argv[3], "wb"), *times = fopen(argv[4], "wb");
    if (!samples || !from || !to || !times) return fail("files");
    while (fread(samples, 1, chunk, from) == chunk) {
        struct timespec a, b;
        out[0] = out[1] = (planish_buffer){NULL, 0};
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (m->run(s, in, 3, out, 2, error, sizeof error)) return fail("run");
        clock_gettime(CLOCK_MONOTONIC, &b);
        int64_t ns = (int64_t)(b.tv_sec - a.tv_sec) * 1000000000 + (b.tv_nsec - a.tv_nsec);
        if (out[probability].bytes != sizeof(float) || out[next].bytes != 2 * 128 * sizeof(float)) return fail("sizes");
        fwrite(out[probability].data, 1, out[probability].bytes, to);
        fwrite(out[next].data, 1, out[next].bytes, to);
        fwrite(&ns, sizeof ns, 1, times);
    }
    m->destroy(s);
    return fclose(to) || fclose(times);
}
