/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Numbers, sizes and times as administrators and requests write them; overflow is always -ERANGE. */

#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "basic/strings.h"

/* Reads the digits at *s; -EINVAL when there are none. */
static int parse_digits(const char **s, uint64_t *ret) {
        uint64_t value = 0;
        bool overflow = false;
        const char *p = *s;

        if (*p < '0' || *p > '9')
                return -EINVAL;

        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
                    __builtin_add_overflow(value, (uint64_t) (*p - '0'), &value))
                        overflow = true;

        *s = p;
        if (overflow)
                return -ERANGE;

        *ret = value;
        return 0;
}

int parse_u64(const char *s, uint64_t *ret) {
        uint64_t value = 0;
        int r;

        r = parse_digits(&s, &value);
        if (r != -EINVAL && *s)
                return -EINVAL;
        if (r < 0)
                return r;

        *ret = value;
        return 0;
}

int parse_u32(const char *s, uint32_t *ret) {
        uint64_t value;
        int r;

        r = parse_u64(s, &value);
        if (r < 0)
                return r;
        if (value > UINT32_MAX)
                return -ERANGE;

        *ret = (uint32_t) value;
        return 0;
}

int parse_int(const char *s, int *ret) {
        bool negative = *s == '-';
        uint64_t value;
        int r;

        r = parse_u64(s + negative, &value);
        if (r < 0)
                return r;
        if (value > (uint64_t) INT32_MAX + negative)
                return -ERANGE;

        *ret = negative ? (int) -(int64_t) value : (int) value;
        return 0;
}

int parse_boolean(const char *s) {
        static const char *const words[][2] = {
                { "no", "yes" }, { "false", "true" }, { "off", "on" },
                { "0", "1" },    { "n", "y" },        { "f", "t" },
        };

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                for (int value = 0; value <= 1; value++)
                        if (strcasecmp(s, words[i][value]) == 0)
                                return value;

        return -EINVAL;
}

/* Reads "12" or "1.5" and multiplies by unit; *s behind it. */
typedef struct Decimal {
        uint64_t whole;
        uint64_t fraction, divisor; /* fraction / divisor < 1 */
} Decimal;

static int parse_decimal(const char **s, Decimal *ret) {
        Decimal d = { .divisor = 1 };
        int r;

        r = parse_digits(s, &d.whole);
        if (r < 0)
                return r;

        if (**s == '.') {
                (*s)++;
                if (**s < '0' || **s > '9')
                        return -EINVAL;

                for (; **s >= '0' && **s <= '9'; (*s)++)
                        if (d.divisor < 1000000) {
                                d.fraction = d.fraction * 10 + (uint64_t) (**s - '0');
                                d.divisor *= 10;
                        }
        }

        *ret = d;
        return 0;
}

static int decimal_scale(const Decimal *d, uint64_t unit, uint64_t *ret) {
        unsigned __int128 part = (unsigned __int128) d->fraction * unit / d->divisor;
        uint64_t value;

        if (__builtin_mul_overflow(d->whole, unit, &value) ||
            __builtin_add_overflow(value, (uint64_t) part, &value) ||
            value == UINT64_MAX) /* that is "infinity" */
                return -ERANGE;

        *ret = value;
        return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes) {
        static const char units[] = "BKMGT";
        const char *unit = units;
        Decimal d;
        int r;

        if (streq(s, "infinity")) {
                *ret_bytes = UINT64_MAX;
                return 0;
        }

        r = parse_decimal(&s, &d);
        if (r < 0)
                return r;

        if (*s) {
                unit = strchr(units, *s);
                if (!unit || s[1])
                        return -EINVAL;
        }

        return decimal_scale(&d, UINT64_C(1) << (10 * (unit - units)), ret_bytes);
}

static const struct {
        const char *name;
        uint64_t usec;
} time_units[] = {
        { "us", 1 },
        { "usec", 1 },
        { "µs", 1 },
        { "ms", USEC_PER_MSEC },
        { "msec", USEC_PER_MSEC },
        { "", USEC_PER_SEC },
        { "s", USEC_PER_SEC },
        { "sec", USEC_PER_SEC },
        { "second", USEC_PER_SEC },
        { "seconds", USEC_PER_SEC },
        { "m", 60 * USEC_PER_SEC },
        { "min", 60 * USEC_PER_SEC },
        { "minute", 60 * USEC_PER_SEC },
        { "minutes", 60 * USEC_PER_SEC },
        { "h", 3600 * USEC_PER_SEC },
        { "hr", 3600 * USEC_PER_SEC },
        { "hour", 3600 * USEC_PER_SEC },
        { "hours", 3600 * USEC_PER_SEC },
        { "d", 24 * 3600 * USEC_PER_SEC },
        { "day", 24 * 3600 * USEC_PER_SEC },
        { "days", 24 * 3600 * USEC_PER_SEC },
        { "w", 7 * 24 * 3600 * USEC_PER_SEC },
        { "week", 7 * 24 * 3600 * USEC_PER_SEC },
        { "weeks", 7 * 24 * 3600 * USEC_PER_SEC },
        { "M", 2630016 * USEC_PER_SEC }, /* 30.44 days */
        { "month", 2630016 * USEC_PER_SEC },
        { "months", 2630016 * USEC_PER_SEC },
        { "y", 31557600 * USEC_PER_SEC }, /* 365.25 days */
        { "year", 31557600 * USEC_PER_SEC },
        { "years", 31557600 * USEC_PER_SEC },
};

static int time_unit(const char **s, uint64_t *ret) {
        size_t n = strcspn(*s, " \t0123456789.");

        for (size_t i = 0; i < ELEMENTSOF(time_units); i++)
                if (strlen(time_units[i].name) == n && strncmp(*s, time_units[i].name, n) == 0) {
                        *s += n;
                        *ret = time_units[i].usec;
                        return 0;
                }

        return -EINVAL;
}

int parse_usec(const char *s, uint64_t *ret_usec) {
        static const char blanks[] = " \t";
        uint64_t sum = 0;
        int r;

        s += strspn(s, blanks);
        if (streq(s, "infinity")) {
                *ret_usec = USEC_INFINITY;
                return 0;
        }
        if (!*s)
                return -EINVAL;

        while (*s) {
                uint64_t unit, usec;
                Decimal d;

                r = parse_decimal(&s, &d);
                if (r < 0)
                        return r;

                s += strspn(s, blanks);
                r = time_unit(&s, &unit);
                if (r < 0)
                        return r;

                r = decimal_scale(&d, unit, &usec);
                if (r < 0)
                        return r;
                if (__builtin_add_overflow(sum, usec, &sum) || sum == USEC_INFINITY)
                        return -ERANGE;

                s += strspn(s, blanks);
        }

        *ret_usec = sum;
        return 0;
}

int parse_percent(const char *s, unsigned *ret) {
        uint64_t value = 0;
        int r;

        r = parse_digits(&s, &value);
        if (r == -EINVAL || !streq(s, "%"))
                return -EINVAL;
        if (r < 0 || value > 1000)
                return -ERANGE;

        *ret = (unsigned) value;
        return 0;
}

char* format_size(char buffer[static FORMAT_SIZE_LEN], uint64_t bytes) {
        static const char units[] = "BKMGT";
        unsigned i = 0;
        uint64_t tenths;

        if (bytes == UINT64_MAX)
                return strcpy(buffer, "infinity");

        while (i + 1 < sizeof(units) - 1 && bytes >> (10 * (i + 1)) > 0)
                i++;

        tenths = i == 0 ? 0
                        : (uint64_t) ((unsigned __int128) (bytes & ((UINT64_C(1) << (10 * i)) - 1)) * 10 >>
                                      (10 * i));
        if (tenths > 0)
                (void) snprintf(buffer, FORMAT_SIZE_LEN, "%llu.%llu%c",
                                (unsigned long long) (bytes >> (10 * i)), (unsigned long long) tenths,
                                units[i]);
        else
                (void) snprintf(buffer, FORMAT_SIZE_LEN, "%llu%c", (unsigned long long) (bytes >> (10 * i)),
                                units[i]);
        return buffer;
}

char* format_rfc3339(char buffer[static FORMAT_TIME_LEN], uint64_t realtime_usec) {
        time_t t = (time_t) (realtime_usec / USEC_PER_SEC);
        struct tm tm;

        if (!gmtime_r(&t, &tm) || tm.tm_year > 9999 - 1900)
                return strcpy(buffer, "n/a");

        (void) strftime(buffer, FORMAT_TIME_LEN, "%Y-%m-%dT%H:%M:%SZ", &tm);
        return buffer;
}

char* format_timespan(char buffer[static FORMAT_TIME_LEN], uint64_t usec) {
        static const struct {
                const char *name;
                uint64_t usec;
        } units[] = {
                { "d", 24 * 3600 * USEC_PER_SEC }, { "h", 3600 * USEC_PER_SEC },
                { "min", 60 * USEC_PER_SEC },      { "s", USEC_PER_SEC },
                { "ms", USEC_PER_MSEC },           { "us", 1 },
        };

        if (usec == USEC_INFINITY)
                return strcpy(buffer, "infinity");

        /* the two largest units, the second one only where it says something */
        for (size_t i = 0; i < ELEMENTSOF(units); i++) {
                unsigned whole = (unsigned) (usec / units[i].usec), rest; /* 213503982 days at most */

                if (whole == 0)
                        continue;

                rest = i < 3 ? (unsigned) (usec % units[i].usec / units[i + 1].usec) : 0;
                if (rest > 0)
                        (void) snprintf(buffer, FORMAT_TIME_LEN, "%u%s %u%s", whole, units[i].name, rest,
                                        units[i + 1].name);
                else
                        (void) snprintf(buffer, FORMAT_TIME_LEN, "%u%s", whole, units[i].name);
                return buffer;
        }

        return strcpy(buffer, "0s");
}

int parse_signal(const char *s) {
        const char *name = startswith(s, "SIG") ?: s;
        uint32_t number;

        if (parse_u32(s, &number) >= 0)
                return number > 0 && number < (uint32_t) _NSIG ? (int) number : -EINVAL;

        for (int sig = 1; sig < _NSIG; sig++) {
                const char *have = sigabbrev_np(sig);

                if (have && streq(have, name))
                        return sig;
        }

        return -EINVAL;
}
