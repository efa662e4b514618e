/* The tracepoint that benchmarks/lttng_record.c compares a record to: the same payload. LTTng adds the time itself. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER xybridd_bench

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "lttng_provider.h"

#if !defined(LTTNG_PROVIDER_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define LTTNG_PROVIDER_H

#include <lttng/tracepoint.h>

LTTNG_UST_TRACEPOINT_EVENT(xybridd_bench, plain, LTTNG_UST_TP_ARGS(double, latency_ms, uint64_t, descriptor),
                           LTTNG_UST_TP_FIELDS(lttng_ust_field_float(double, latency_ms, latency_ms)
                                                   lttng_ust_field_integer(uint64_t, descriptor, descriptor)))

LTTNG_UST_TRACEPOINT_EVENT(xybridd_bench, with_stats,
                           LTTNG_UST_TP_ARGS(double, latency_ms, uint64_t, descriptor, double, tokens_per_second),
                           LTTNG_UST_TP_FIELDS(lttng_ust_field_float(double, latency_ms, latency_ms)
                                                   lttng_ust_field_integer(uint64_t, descriptor, descriptor)
                                                       lttng_ust_field_float(double, tokens_per_second,
                                                                             tokens_per_second)))

#endif

#include <lttng/tracepoint-event.h>
