/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One line of log is one datagram in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) or
 * one write to stderr. Everything is built in a buffer on the stack and cut to LOG_LINE_MAX: logging never
 * allocates, never blocks and never changes errno. The state below is the one global that style.md §1
 * allows.
 */

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "basic/log.h"
#include "basic/strings.h"

#define LOG_LINE_MAX     2048U         /* message */
#define LOG_FIELD_MAX    1024U         /* value of one extra field */
#define LOG_DATAGRAM_MAX (12U * 1024U) /* all fields of a line */

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static struct {
        const char *name;
        int level;
        int journal_fd;
        bool prefix; /* stderr is read by something that understands "<N>" */
        uint64_t n_dropped;
} log_state = { .name = "wrenn", .level = LOG_INFO, .journal_fd = -EBADF };

static const char *const log_level_names[] = {
        [LOG_EMERG] = "emerg",     [LOG_ALERT] = "alert",   [LOG_CRIT] = "crit", [LOG_ERR] = "err",
        [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice", [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

static bool stderr_is_journal(void) {
        const char *e = getenv("JOURNAL_STREAM");
        char buffer[64];
        struct stat st;

        if (isempty(e) || fstat(STDERR_FILENO, &st) < 0)
                return false;

        (void) snprintf(buffer, sizeof(buffer), "%llu:%llu", (unsigned long long) st.st_dev,
                        (unsigned long long) st.st_ino);
        return streq(e, buffer);
}

static int journal_open(void) {
        static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
        int fd;

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;

        if (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0) {
                int r = -errno;

                (void) close(fd);
                return r;
        }

        return fd;
}

void log_open(const char *name) {
        const char *e;
        int level;

        log_state.name = name;

        e = getenv("WRENN_LOG_LEVEL") ?: getenv("SYSTEMD_LOG_LEVEL");
        level = e ? log_level_from_string(e) : -EINVAL;
        if (level >= 0)
                log_state.level = level;

        if (log_state.journal_fd >= 0)
                (void) close(log_state.journal_fd);
        log_state.journal_fd = stderr_is_journal() ? journal_open() : -EBADF;
        log_state.prefix = stderr_is_journal() || getenv("INVOCATION_ID");
}

void log_set_level(int level) {
        assert(level >= LOG_EMERG && level <= LOG_DEBUG);
        log_state.level = level;
}

int log_get_level(void) {
        return log_state.level;
}

uint64_t log_dropped(void) {
        return log_state.n_dropped;
}

int log_level_from_string(const char *s) {
        if (isempty(s))
                return -EINVAL;
        if (s[0] >= '0' && s[0] <= '7' && !s[1])
                return s[0] - '0';
        if (streq(s, "error"))
                return LOG_ERR;

        for (size_t i = 0; i < ELEMENTSOF(log_level_names); i++)
                if (streq(s, log_level_names[i]))
                        return (int) i;

        return -EINVAL;
}

const char* log_level_to_string(int level) {
        assert(level >= LOG_EMERG && level <= LOG_DEBUG);
        return log_level_names[level];
}

typedef struct Datagram {
        char data[LOG_DATAGRAM_MAX];
        size_t n;
} Datagram;

static void datagram_append(Datagram *d, const void *data, size_t n) {
        memcpy(d->data + d->n, data, n);
        d->n += n;
}

/* NAME=value, in the binary form when the value holds a line break. What does not fit is left out. */
static void datagram_field(Datagram *d, const char *name, size_t n_name, const char *value, size_t n_value) {
        if (n_name + n_value + 10 > sizeof(d->data) - d->n)
                return;

        datagram_append(d, name, n_name);
        if (memchr(value, '\n', n_value)) {
                uint64_t n_le = n_value;

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
                n_le = __builtin_bswap64(n_le);
#endif
                datagram_append(d, "\n", 1);
                datagram_append(d, &n_le, sizeof(n_le));
        } else
                datagram_append(d, "=", 1);
        datagram_append(d, value, n_value);
        datagram_append(d, "\n", 1);
}

static void datagram_text(Datagram *d, const char *name, const char *value) {
        datagram_field(d, name, strlen(name), value, strlen(value));
}

static void datagram_number(Datagram *d, const char *name, int value) {
        char buffer[16];

        (void) snprintf(buffer, sizeof(buffer), "%i", value);
        datagram_text(d, name, buffer);
}

static void log_to_journal(int level, int error, const char *const *fields, const char *file, int line,
                           const char *func, const char *message) {
        Datagram d;

        d.n = 0;
        datagram_number(&d, "PRIORITY", level);
        datagram_text(&d, "SYSLOG_IDENTIFIER", log_state.name);
        datagram_text(&d, "CODE_FILE", file);
        datagram_number(&d, "CODE_LINE", line);
        datagram_text(&d, "CODE_FUNC", func);
        if (error != 0)
                datagram_number(&d, "ERRNO", error);
        datagram_text(&d, "MESSAGE", message);

        for (; fields && *fields; fields++) {
                const char *value = strchr(*fields, '=');

                if (value)
                        datagram_field(&d, *fields, (size_t) (value - *fields), value + 1,
                                       strnlen(value + 1, LOG_FIELD_MAX));
        }

        if (send(log_state.journal_fd, d.data, d.n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                log_state.n_dropped++;
}

static void log_to_stderr(int level, const char *message) {
        struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
        char buffer[LOG_LINE_MAX + 64];
        int n;

        if (log_state.prefix)
                n = snprintf(buffer, sizeof(buffer) - 1, "<%i>%s", level, message);
        else
                n = snprintf(buffer, sizeof(buffer) - 1, "%s: %s", log_state.name, message);
        if (n < 0)
                return;

        n = (int) MIN((size_t) n, sizeof(buffer) - 2);

        /* one line in, one line out: what a client or a guest said must not forge a second one */
        for (int i = 0; i < n; i++)
                if ((unsigned char) buffer[i] < ' ' && buffer[i] != '\t')
                        buffer[i] = '?';
        buffer[n++] = '\n';

        if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT) || write(STDERR_FILENO, buffer, (size_t) n) < 0)
                log_state.n_dropped++;
}

static int log_fullv(int level, int error, const char *const *fields, const char *file, int line,
                     const char *func, const char *format, va_list ap) __attribute__((format(printf, 7, 0)));

static int log_fullv(int level, int error, const char *const *fields, const char *file, int line,
                     const char *func, const char *format, va_list ap) {
        char message[LOG_LINE_MAX];
        int saved_errno = errno;

        error = abs(error);
        if (level > log_state.level)
                return -error;

        errno = error; /* for %m */
        if (vsnprintf(message, sizeof(message), format, ap) < 0)
                message[0] = 0;

        if (log_state.journal_fd >= 0)
                log_to_journal(level, error, fields, file, line, func, message);
        else
                log_to_stderr(level, message);

        errno = saved_errno;
        return -error;
}

int log_full(int level, int error, const char *const *fields, const char *file, int line, const char *func,
             const char *format, ...) {
        va_list ap;
        int r;

        va_start(ap, format);
        r = log_fullv(level, error, fields, file, line, func, format, ap);
        va_end(ap);
        return r;
}

int log_capsule_full(const char *id, int level, int error, const char *file, int line, const char *func,
                     const char *format, ...) {
        char field[LOG_FIELD_MAX], message[LOG_LINE_MAX];
        const char *fields[] = { field, NULL };
        va_list ap;
        int n;

        if (level > log_state.level)
                return -abs(error);

        errno = abs(error); /* for %m */
        va_start(ap, format);
        n = vsnprintf(message, sizeof(message), format, ap);
        va_end(ap);
        if (n < 0)
                message[0] = 0;

        if (!id)
                return log_full(level, error, NULL, file, line, func, "%s", message);
        (void) snprintf(field, sizeof(field), "WRENN_CAPSULE_ID=%s", id);
        return log_full(level, error, fields, file, line, func, "%s: %s", id, message);
}
