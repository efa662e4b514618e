/* A client of xybridd in C11 and POSIX: three files to copy into your app (this one, xybridd.c, xybridd_ring.h), no
 * libraries. docs/clients.md has the rules.
 *
 *     xybridd *telemetry = xybridd_open("kiosk", "2.1");
 *     xybridd_inference(telemetry, "whisper-tiny", "1.0", 212, NULL);
 *     xybridd_end(telemetry, 2000);
 *     xybridd_free(telemetry);
 *
 * A record is written into a ring: a file of at most 2 MiB that is mapped, in memory where the system has a runtime
 * folder. The daemon reads the file, so a record whose call returned survives the death of the app, by whatever signal.
 * Recording never waits, and makes no system call while the daemon is there and awake. Call `xybridd_pump` from your loop
 * too, so that a daemon that came back is found while you record nothing. Without a daemon, records wait in the ring; past
 * its 16,000 slots, new ones are dropped and counted.
 *
 * One thread at a time may use a client. Open it after fork, not before. Texts are UTF-8; what is not becomes U+FFFD.
 * Every function takes NULL for a client, and then does nothing: no telemetry is no reason for an app to stop.
 */
#ifndef XYBRIDD_H
#define XYBRIDD_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xybridd xybridd;

/* What you know of one inference; what is 0 or NULL is not said. */
struct xybridd_stats {
    double tokens_per_second;
    double samples_per_second;
    double time_to_first_token_ms;
    unsigned long memory_peak_mb;
    unsigned long input_tokens;
    unsigned long output_tokens;
    const char *execution_target; /* "local", "cloud", "fallback" */
    const char *hardware_used;    /* "cpu", "gpu", "npu" */
};

/* What became of the records: recorded = acknowledged + dropped + refused + those that wait. */
struct xybridd_counts {
    unsigned long long recorded;     /* asked for; without those that cannot be right, like a latency of NaN */
    unsigned long long acknowledged; /* on the daemon's disk */
    unsigned long long dropped;      /* no room: the daemon was away for too long, or no file can be made */
    unsigned long long refused;      /* the daemon takes them for damaged */
    unsigned long connections;       /* how often a daemon was found */
};

/* No I/O yet: the first record makes the ring, and begins the session. NULL without memory or randomness. `app_version`
 * may be NULL. */
xybridd *xybridd_open(const char *app, const char *app_version);

/* One inference. `stats` may be NULL. False: it was not kept, for it cannot be right or there is no room. */
bool xybridd_inference(xybridd *client, const char *model_id, const char *version, double latency_ms,
                       const struct xybridd_stats *stats);

/* Something that went wrong; `model_id` and `version` may be NULL. The daemon finds the category, and redacts. */
bool xybridd_error(xybridd *client, const char *message, const char *model_id, const char *version);

/* Connect, send, hear: whatever there is to do. Waits for something to do at most `timeout_ms`; with 0 not at all. */
void xybridd_pump(xybridd *client, int timeout_ms);

/* True: everything recorded so far is on disk. */
bool xybridd_flush(xybridd *client, int timeout_ms);

/* Bring everything home and end the session. False: not within `timeout_ms`; what still waits stays in its file, and is
 * delivered by the daemon of this user, or by this user's next app that records. Nothing is recorded after it. */
bool xybridd_end(xybridd *client, int timeout_ms);

struct xybridd_counts xybridd_counted(const xybridd *client);

/* The id of the session that is recorded into, for `xybridd sessions show`. */
const char *xybridd_session_id(const xybridd *client);

/* Without `xybridd_end` before it, the session ends as lost. */
void xybridd_free(xybridd *client);

#ifdef __cplusplus
}
#endif

#endif
