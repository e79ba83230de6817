/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "ctl/terminal.h"

/* There is one terminal, and signal handlers have no other way to it. */
static struct termios saved;
static volatile sig_atomic_t is_raw;

bool terminal_is_ours(void) {
        return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

void terminal_restore(void) {
        if (!is_raw)
                return;
        is_raw = 0;
        (void) tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void on_crash(int sig) {
        is_raw = 0;
        (void) tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        (void) raise(sig); /* SA_RESETHAND: this time as if we had never asked */
}

static void watch_crashes(void) {
        static const int signals[] = { SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,  SIGABRT, SIGTRAP,
                                       SIGSYS,  SIGQUIT, SIGXCPU, SIGXFSZ, SIGALRM };
        struct sigaction action = { .sa_handler = on_crash, .sa_flags = (int) (SA_RESETHAND | SA_NODEFER) };

        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaction(signals[i], &action, NULL);
        (void) atexit(terminal_restore);
}

int terminal_make_raw(void) {
        static bool watched;
        struct termios raw;

        if (!is_raw && tcgetattr(STDIN_FILENO, &saved) < 0)
                return -errno;
        if (!watched)
                watch_crashes();
        watched = true;

        raw = saved;
        cfmakeraw(&raw);
        is_raw = 1;
        return tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0 ? -errno : 0;
}

void terminal_calm(void) {
        /* soft reset, mouse reports, bracketed paste, focus events */
        static const char calm[] =
                        "\033[!p\033[?1000l\033[?1002l\033[?1003l\033[?1006l\033[?2004l\033[?1004l";
        const char *term = getenv("TERM");

        if (term && *term && strcmp(term, "dumb") != 0)
                (void) !write(STDOUT_FILENO, calm, sizeof(calm) - 1);
}

void terminal_size(uint32_t *ret_cols, uint32_t *ret_rows) {
        struct winsize size;

        if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
                size = (struct winsize) { .ws_col = 80, .ws_row = 24 };
        *ret_cols = MIN((uint32_t) size.ws_col, (uint32_t) PTY_COLS_MAX);
        *ret_rows = MIN((uint32_t) size.ws_row, (uint32_t) PTY_ROWS_MAX);
}

bool escape_key_seen(EscapeKey *k, const char *data, size_t n, uint64_t now_usec, size_t *ret_n) {
        for (size_t i = 0; i < n; i++) {
                if (data[i] != ESCAPE_KEY) {
                        k->n = 0;
                        continue;
                }
                if (k->n == 0 || now_usec - k->first_usec > ESCAPE_KEY_USEC) {
                        k->n = 0;
                        k->first_usec = now_usec;
                }
                if (++k->n < ESCAPE_KEY_TIMES)
                        continue;
                k->n = 0;
                *ret_n = i;
                return true;
        }
        *ret_n = n;
        return false;
}
