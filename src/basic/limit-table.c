/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <inttypes.h>
#include <stdio.h>

#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"

const Limit limit_table[_LIMIT_MAX] = {
#define LIMIT(id, ...) [LIMIT_##id] = { __VA_ARGS__ },
#include "basic/limits.def"
#undef LIMIT
};

#define RANGE_LEN 128U

static const char* format_value(const Limit *l,
                                char buffer[static CONST_MAX(FORMAT_SIZE_LEN, FORMAT_TIME_LEN)],
                                uint64_t value) {
        return l->kind == LIMIT_KIND_SIZE   ? format_size(buffer, value)
               : l->kind == LIMIT_KIND_TIME ? format_timespan(buffer, value)
                                            : NULL;
}

/* "1 to 32", "128M to 256G"; "128 to 262144 (128M to 256G)" where clients count in a unit. */
static void format_range(const Limit *l, char ret[static RANGE_LEN]) {
        char low[CONST_MAX(FORMAT_SIZE_LEN, FORMAT_TIME_LEN)], high[sizeof(low)];
        uint64_t unit = l->unit ?: 1, max = l->max ?: INT64_MAX;
        const char *a = format_value(l, low, l->min), *b = format_value(l, high, max);

        if (a && b && unit == 1)
                (void) snprintf(ret, RANGE_LEN, "%s to %s", a, b);
        else
                (void) snprintf(ret, RANGE_LEN, "%" PRIu64 " to %" PRIu64 "%s%s%s%s%s",
                                (l->min + unit - 1) / unit, max / unit, a ? " (" : "", strempty(a),
                                a ? " to " : "", strempty(b), a ? ")" : "");
}

int limit_refuse_number(const Limit *l, const char *name, const char *given, Fault *reterr) {
        char range[RANGE_LEN];

        format_range(l, range);
        if (!given)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an integer, %s.", name, range);
        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected %s, not %s.", name, range, given);
}

int limit_check_number(const Limit *l, const char *name, uint64_t value, Fault *reterr) {
        Limit base = *l;
        char given[32], step[FORMAT_SIZE_LEN];

        base.unit = 1;
        (void) snprintf(given, sizeof(given), "%" PRIu64, value);
        if (value < l->min || (l->max > 0 && value > l->max))
                return limit_refuse_number(&base, name, given, reterr);
        if (l->step > 0 && value % l->step != 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a multiple of %s, not %s.", name,
                                 format_size(step, l->step), given);
        return 0;
}

int limit_check_text(const Limit *l, const char *name, size_t n, Fault *reterr) {
        if (n >= l->min && (l->max == 0 || n <= l->max))
                return 0;
        if (n == 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a non-empty string.", name);
        return fault_set(reterr, FAULT_INVALID_ARGS,
                         "%s: expected a string of %" PRIu64 " to %" PRIu64 " bytes, not %zu.", name, l->min,
                         l->max ?: INT64_MAX, n);
}

int limit_check_count(const Limit *l, const char *name, size_t n, Fault *reterr) {
        if (n < l->min)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected at least %" PRIu64 " entries, not %zu.", name, l->min, n);
        if (l->max > 0 && n > l->max)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected at most %" PRIu64 " entries, not %zu.", name, l->max, n);
        return 0;
}

int limit_check_entry(const Limit *l, const char *name, size_t n, uint64_t *total, Fault *reterr) {
        char size[FORMAT_SIZE_LEN];

        if (l->item > 0 && n > l->item)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected entries of at most %" PRIu64 " bytes, not %zu.", name,
                                 l->item, n);
        *total += n + 1;
        if (l->all > 0 && *total > l->all)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected at most %s altogether.", name,
                                 format_size(size, l->all));
        return 0;
}
