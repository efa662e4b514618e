/* An app that times something: each line of standard input is a latency in ms, or, if it is no number, an error.
 *
 *     cc -std=c11 -o demo demo.c xybridd.c      (with xybridd.h and xybridd_ring.h beside them)
 *     printf '212\n187.5\nCUDA out of memory\n' | ./demo kiosk whisper-tiny 1.0
 *
 * Prints one line at the end: the session, and what became of the records. Exit code 1: not all of them are on the
 * daemon's disk yet.
 */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xybridd.h"

int main(int count, char **words) {
    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: %s APP MODEL VERSION [SECONDS_TO_WAIT_AT_THE_END] <LATENCIES\n", words[0]);
        return 2;
    }
    int patience_s = count == 5 ? atoi(words[4]) : 10;
    xybridd *telemetry = xybridd_open(words[1], "1.0");
    char line[4096];
    setvbuf(stdin, NULL, _IONBF, 0); /* or poll would not know of lines that were read already */
    for (;;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (poll(&input, 1, 100) == 0) {
            xybridd_pump(telemetry, 0);
            continue;
        }
        if (fgets(line, sizeof line, stdin) == NULL)
            break;
        line[strcspn(line, "\n")] = '\0';
        char *rest;
        double latency_ms = strtod(line, &rest);
        if (rest != line && *rest == '\0' && latency_ms >= 0 && latency_ms <= 1e15)
            xybridd_inference(telemetry, words[2], words[3], latency_ms,
                              &(struct xybridd_stats){.hardware_used = "cpu", .execution_target = "local"});
        else
            xybridd_error(telemetry, line, words[2], words[3]);
    }
    bool home = xybridd_end(telemetry, patience_s * 1000);
    if (!home)
        fprintf(stderr, "%s: no daemon took all of it within %d s; the rest waits in a file\n", words[0], patience_s);
    struct xybridd_counts counts = xybridd_counted(telemetry);
    printf("session=%s recorded=%llu acknowledged=%llu dropped=%llu refused=%llu connections=%lu\n",
           xybridd_session_id(telemetry), counts.recorded, counts.acknowledged, counts.dropped, counts.refused,
           counts.connections);
    xybridd_free(telemetry);
    return home ? 0 : 1;
}
