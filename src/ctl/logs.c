/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* logs: the console of a capsule. The service hands over a pipe that gets what it kept, then what follows;
 * the two are not told apart, so what was kept ends when nothing comes for a moment. */

#include <poll.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "ctl/display.h"
#include "ctl/flow.h"

#define KEPT_PAUSE_MSEC 200

/* What was kept: at most the ring's size, so that a guest that never pauses cannot hold us. */
static int read_kept(int fd, char **ret, size_t *ret_n, bool *ret_at_end) {
        _cleanup_free_ char *data = malloc(CONSOLE_RING_BYTES);
        struct pollfd p = { .fd = fd, .events = POLLIN };
        size_t size = 0;
        ssize_t n = 1;

        if (!data)
                return -ENOMEM;
        while (size < CONSOLE_RING_BYTES && n > 0 && poll(&p, 1, KEPT_PAUSE_MSEC) > 0) {
                n = read(fd, data + size, CONSOLE_RING_BYTES - size);
                if (n < 0)
                        return -errno;
                size += (size_t) n;
        }
        *ret = TAKE_PTR(data);
        *ret_n = size;
        *ret_at_end = n == 0;
        return 0;
}

/* Where the last lines begin. */
static size_t last_lines(const char *data, size_t n, uint64_t lines) {
        size_t i = n;

        if (lines == 0)
                return n;
        for (; i > 0; i--)
                if (data[i - 1] == '\n' && i < n && --lines == 0)
                        break;
        return i;
}

/* On a terminal harmless, else as it is. */
static int show(Display *d, const char *data, size_t n) {
        _cleanup_free_ char *shown = NULL;
        int r;

        if (!isatty(STDOUT_FILENO))
                return write_all(STDOUT_FILENO, data, n);
        shown = malloc(n * FLOW_EXPANSION + 1);
        if (!shown)
                return -ENOMEM;
        memcpy(shown, data, n);
        r = display_transform(d, shown, n, &n);
        return r < 0 ? r : write_all(STDOUT_FILENO, shown, n);
}

static int logs_show(const CtlOptions *o, int fd) {
        _cleanup_free_ char *data = NULL;
        FlowTransform transform = isatty(STDOUT_FILENO) ? display_transform : NULL;
        bool at_end = false;
        Display display = {};
        size_t n = 0, begin;
        int r;

        r = read_kept(fd, &data, &n, &at_end);
        if (r < 0)
                return r;
        begin = last_lines(data, n, o->lines);
        r = show(&display, data + begin, n - begin);
        return r < 0 || at_end || !o->follow
                               ? r
                               : flow_run(fd, STDOUT_FILENO, transform, &display, /* ret_bytes= */ NULL);
}

int verb_logs(Ctl *ctl, char **arguments) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int fd, r;

        r = ctl_capsule_method(ctl, arguments[0], "OpenConsole", &m);
        if (r == 0)
                r = ctl_send(ctl, m, "open the console", &reply);
        if (r != 0)
                return r;
        r = sd_bus_message_read(reply, "h", &fd);
        if (r < 0)
                return log_error_errno(r, "Failed to read the answer: %m");
        r = logs_show(&ctl->options, fd);
        return r < 0 ? log_error_errno(r, "Failed to show the console: %m") : 0;
}
