/* Writes rings with examples/clients/xybridd_ring.h, as tests/client/test_ring_header.py asks: FOLDER SLOTS SCENARIO. */
#include "xybridd_ring.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define AT_S 1700000000.25
enum { THREADS = 8, EACH = 4000 };

static xybridd_ring ring;
static uint32_t model;

static uint32_t model_named(const char *name) {
    const char *strings[] = {name, "1.0"};
    return xr_entry(&ring, XR_MODEL, 0, 2, strings);
}

/* Each line of standard input: latency, bits of the stats, hardware, target, the six stats. */
static void records(void) {
    double latency_ms, input, output;
    struct xr_stats stats;
    unsigned hardware, target;
    char line[512];
    while (fgets(line, sizeof line, stdin)) {
        double *numbers[] = {&latency_ms, NULL, NULL, NULL, &input, &output, &stats.tokens_per_second,
                             &stats.time_to_first_token_ms, &stats.samples_per_second, &stats.memory_peak_mb};
        unsigned *wholes[] = {NULL, &stats.present, &hardware, &target};
        char *at = line;
        for (unsigned i = 0; i < 10; i++) {
            if (numbers[i])
                *numbers[i] = strtod(at, &at);
            else
                *wholes[i] = (unsigned)strtoul(at, &at, 10);
        }
        stats.input_tokens = (uint32_t)input;
        stats.output_tokens = (uint32_t)output;
        stats.hardware = (enum xr_hardware)hardware;
        stats.target = (enum xr_target)target;
        printf("%d\n", (int)xr_inference(&ring, model, latency_ms, AT_S, stats.present || hardware || target ? &stats : NULL));
    }
}

static void other_kinds(void) {
    const char *text[] = {"CUDA out of memory"}, *session[] = {"11111111-2222-4333-8444-555555555555", "1700000000000",
                                                                "site", "42"};
    const uint32_t entry = xr_entry(&ring, XR_SESSION, XR_JOINED, 4, session);
    xr_note(&ring, XR_SESSION_STARTED, entry, 0, AT_S);
    xr_error(&ring, xr_entry(&ring, XR_ERROR_TEXT, 0, 1, text), model, XR_HARDWARE_FAILED, AT_S);
    xr_error(&ring, xr_entry(&ring, XR_ERROR_TEXT, 0, 1, text), 0, XR_CATEGORY_NONE, AT_S);
    xr_note(&ring, XR_DROPPED, 0, 7, AT_S);
    xr_note(&ring, XR_SESSION_ENDED, entry, 0, AT_S);
}

/* Records until the ring is full, then what follows. */
static void full(void) {
    unsigned written = 0;
    while (xr_inference(&ring, model, written, AT_S, NULL) == XR_OK)
        written++;
    const bool again = xr_inference(&ring, model, 1, AT_S, NULL) == XR_OK;
    xr_store(&ring, XR_LIMIT, xr_load(&ring, XR_LIMIT) + 10); /* the reader goes on */
    const bool later = xr_inference(&ring, model, 2, AT_S, NULL) == XR_OK;
    const uint64_t reserved = xr_reserved(&ring.writer);
    xr_retire(&ring);
    printf("%u %d %d %llu %d\n", written, again, later, (unsigned long long)reserved,
           (int)xr_inference(&ring, model, 3, AT_S, NULL));
}

/* The last number below the limit is no room for two slots. */
static void two_slots(void) {
    struct xr_stats stats = {.present = 63, .input_tokens = 1, .output_tokens = 2, .tokens_per_second = 3,
                             .time_to_first_token_ms = 4, .samples_per_second = 5, .memory_peak_mb = 6};
    xr_store(&ring, XR_LIMIT, 1);
    xr_refresh_limit(&ring, 1);
    printf("%d\n", (int)xr_inference(&ring, model, 1, AT_S, &stats));
}

/* The parent's ring in a forked child. */
static void forked(void) {
    xr_inference(&ring, model, 1, AT_S, NULL);
    const pid_t child = fork();
    if (child == 0) {
        const bool may = xr_inference(&ring, model, 2, AT_S, NULL) == XR_OK || model_named("child") != 0;
        xr_close(&ring);
        _exit(may);
    }
    int status = -1;
    waitpid(child, &status, 0);
    printf("%d %d\n", status, (int)xr_inference(&ring, model, 3, AT_S, NULL));
}

static void *one_thread(void *first) {
    for (int i = 0; i < EACH; i++)
        if (xr_inference(&ring, model_named(i % 2 ? "even" : "odd"), *(int *)first + i, xr_now_s(), NULL) != XR_OK)
            abort();
    return NULL;
}

static void threads(void) {
    pthread_t started[THREADS];
    int firsts[THREADS];
    for (int i = 0; i < THREADS; i++) {
        firsts[i] = i * EACH;
        if (pthread_create(&started[i], NULL, one_thread, &firsts[i]) != 0)
            abort();
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(started[i], NULL);
}

/* Strings from standard input, one a line: a model each. Prints their entries. */
static void texts(void) {
    char line[16384];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        const char *strings[] = {line};
        printf("%u %u\n", (unsigned)model_named(line), (unsigned)xr_entry(&ring, XR_ERROR_TEXT, 0, 1, strings));
    }
}

int main(int count, char **words) {
    const struct {
        const char *name;
        void (*act)(void);
    } scenarios[] = {{"records", records}, {"other kinds", other_kinds}, {"full", full},   {"two slots", two_slots},
                     {"forked", forked},   {"threads", threads},         {"texts", texts}};
    const struct xr_identity identity = {"3fa85f64-5717-4562-b3fc-2c963f66afa6", "kiosk", "2.1", NULL, NULL};
    if (count != 4)
        return 2;
    if (xr_create(&ring, words[1], &identity, (uint32_t)strtoul(words[2], NULL, 10), XR_TABLE_BYTES) != 0) {
        perror("xr_create");
        return 1;
    }
    model = model_named("whisper");
    printf("%s\n", ring.path);
    fflush(stdout); /* or a forked child would print it too */
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (strcmp(scenarios[i].name, words[3]) == 0)
            scenarios[i].act();
    if (strcmp(words[3], "killed") == 0) {
        xr_inference(&ring, model, 1, AT_S, NULL);
        raise(SIGKILL);
    }
    xr_close(&ring);
    return 0;
}
