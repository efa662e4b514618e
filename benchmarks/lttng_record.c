/* One turn of benchmarks/lttng.py: (ring | lttng | clock) (plain | stats) FOLDER BURSTS. Prints the nanoseconds of each
 * record, a line for each burst of a thousand. The loop is the same for all. */
#include "xybridd_ring.h"

#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "lttng_provider.h"

enum { BURST = 1000 };

static xybridd_ring ring;
static uint32_t model;
static volatile double sink;

static void ring_plain(double latency_ms) { xr_inference(&ring, model, latency_ms, xr_now_s(), NULL); }

static void ring_stats(double latency_ms) {
    const struct xr_stats stats = {.present = XR_TOKENS_PER_SECOND, .hardware = XR_CPU, .tokens_per_second = latency_ms / 5};
    xr_inference(&ring, model, latency_ms, xr_now_s(), &stats);
}

static void lttng_plain(double latency_ms) {
    lttng_ust_tracepoint(xybridd_bench, plain, latency_ms, xr_descriptor(XR_INFERENCE, model));
}

static void lttng_stats(double latency_ms) {
    lttng_ust_tracepoint(xybridd_bench, with_stats, latency_ms, xr_descriptor(XR_INFERENCE, model), latency_ms / 5);
}

static void clock_alone(double latency_ms) { sink = latency_ms + xr_now_s(); }

static double monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int count, char **words) {
    const struct {
        const char *what, *how;
        void (*record)(double latency_ms);
    } turns[] = {{"ring", "plain", ring_plain},   {"ring", "stats", ring_stats},  {"lttng", "plain", lttng_plain},
                 {"lttng", "stats", lttng_stats}, {"clock", "plain", clock_alone}};
    const struct xr_identity app = {.app = "bench"};
    const char *whisper[] = {"whisper-tiny", "1.0"};
    if (count != 5 || xr_create(&ring, words[3], &app, XR_SLOTS, XR_TABLE_BYTES) != 0)
        return 2;
    model = xr_entry(&ring, XR_MODEL, 0, 2, whisper);
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        if (strcmp(turns[i].what, words[1]) != 0 || strcmp(turns[i].how, words[2]) != 0)
            continue;
        for (long burst = strtol(words[4], NULL, 10); burst > 0; burst--) {
            const double started_ns = monotonic_ns();
            for (int at = 0; at < BURST; at++)
                turns[i].record(212.5 + at);
            printf("%g\n", (monotonic_ns() - started_ns) / BURST);
            /* As a daemon does that has read them. */
            xr_store(&ring, XR_LIMIT, xr_reserved(&ring.writer) + ring.slots);
        }
    }
    if (xr_refresh_limit(&ring, 1) == false)
        return 1;
    unlink(ring.path);
    xr_close(&ring);
    return 0;
}
