/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM without a machine, in QEMU's place: it takes QEMU's arguments, answers QMP, writes a line on the
 * console and plays the agent (fake-agent.h). A capsule made of it starts in milliseconds. The last part of
 * the kernel's path says how it misbehaves:
 *
 *   fail         a message on stderr and exit status 1, at once
 *   mute         no QMP greeting
 *   garbage-qmp  bytes that are no JSON instead of the greeting
 *   crash        SIGSEGV after the identity
 *   silent       no agent
 *   flood        console output without end
 *   streams-N    an agent that takes N streams at a time
 *   stubborn     does not power off when asked to
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "basic/fd.h"
#include "basic/strings.h"
#include "shared/event.h"
#include "shared/json-field.h"
#include "tests/fake/fake-agent.h"

typedef struct FakeVmm {
        sd_event *event;
        int qmp, console, agent;
        const char *mode;
        FakeAgent *fake_agent;
        char line[4096];
        size_t n_line;
} FakeVmm;

static void qmp_say(FakeVmm *v, const char *text) {
        (void) write_all(v->qmp, text, strlen(text));
}

static void qmp_line(FakeVmm *v, char *line) {
        _cleanup_json_ json_t *message = NULL, *answer = NULL;
        _cleanup_free_ char *text = NULL;
        const char *command;

        if (json_parse_text(line, strlen(line), &message, NULL) < 0)
                return;
        command = strempty(json_string_value(json_object_get(message, "execute")));
        answer = json_pack("{s:{}, s:O?}", "return", "id", json_object_get(message, "id"));
        text = json_dumps(answer, JSON_COMPACT);
        qmp_say(v, strempty(text));
        qmp_say(v, "\r\n");
        if (streq(command, "quit"))
                (void) sd_event_exit(v->event, 0);
}

static int on_qmp(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        FakeVmm *v = userdata;
        ssize_t n = read(fd, v->line + v->n_line, sizeof(v->line) - v->n_line - 1);
        char *newline;

        if (n <= 0)
                return sd_event_exit(v->event, n < 0);
        v->n_line += (size_t) n;
        v->line[v->n_line] = 0;
        while ((newline = strchr(v->line, '\n'))) {
                *newline = 0;
                qmp_line(v, v->line);
                v->n_line -= (size_t) (newline + 1 - v->line);
                memmove(v->line, newline + 1, v->n_line + 1);
        }
        return 0;
}

static int on_console(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        char data[4096];

        memset(data, 'c', sizeof(data));
        data[sizeof(data) - 1] = '\n';
        (void) write(fd, data, sizeof(data));
        return 0;
}

static int on_crash(sd_event_source *s, uint64_t usec, void *userdata) {
        (void) signal(SIGSEGV, SIG_DFL);
        return raise(SIGSEGV);
}

static void on_poweroff(void *userdata) {
        FakeVmm *v = userdata;

        if (!streq(v->mode, "stubborn"))
                (void) sd_event_exit(v->event, 0);
}

static void parse_argv(FakeVmm *v, int argc, char **argv) {
        static const char *const ids[] = { "socket,id=qmp,fd=", "socket,id=console,fd=",
                                           "socket,id=agent,fd=" };
        int *fds[] = { &v->qmp, &v->console, &v->agent };

        v->mode = "";
        for (int i = 1; i + 1 < argc; i++) {
                if (streq(argv[i], "-kernel"))
                        v->mode = strrchr(argv[i + 1], '/') ? strrchr(argv[i + 1], '/') + 1 : argv[i + 1];
                for (size_t k = 0; k < ELEMENTSOF(ids); k++)
                        if (startswith(argv[i + 1], ids[k]))
                                (void) parse_int(startswith(argv[i + 1], ids[k]), fds[k]);
        }
}

static int run(FakeVmm *v) {
        FakeAgentOptions options = { .on_poweroff = on_poweroff, .userdata = v };
        sd_event_source *crash = NULL;
        const char *n;
        int r;

        if (streq(v->mode, "fail")) {
                (void) fputs("qemu-system-fake: cannot start:\x1b[31m no such kernel\nsome hint\n", stderr);
                return 1;
        }
        r = sd_event_new(&v->event);
        if (r < 0)
                return 1;
        r = sd_event_add_io(v->event, NULL, v->qmp, EPOLLIN, on_qmp, v);
        if (r >= 0 && streq(v->mode, "flood"))
                r = sd_event_add_io(v->event, NULL, v->console, EPOLLOUT, on_console, v);
        if (streq(v->mode, "garbage-qmp"))
                qmp_say(v, "]]]] not JSON\n");
        else if (!streq(v->mode, "mute"))
                qmp_say(v,
                        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 0}}, \"capabilities\": []}}\r\n");
        (void) write_all(v->console, "hello from the console\r\n", 24);

        options.silent = streq(v->mode, "silent");
        n = startswith(v->mode, "streams-");
        if (n)
                (void) parse_u32(n, &options.streams_max);
        if (r >= 0)
                r = fake_agent_new(v->event, v->agent, &options, &v->fake_agent);
        if (r >= 0 && streq(v->mode, "crash"))
                r = event_timer(v->event, &crash, 300 * USEC_PER_MSEC, 0, on_crash, NULL, "crash");
        if (r >= 0)
                r = sd_event_loop(v->event);
        crash = event_source_free(crash);
        v->fake_agent = fake_agent_free(v->fake_agent);
        v->event = sd_event_unref(v->event);
        return r < 0 ? 1 : r;
}

int main(int argc, char **argv) {
        FakeVmm v = { .qmp = -EBADF, .console = -EBADF, .agent = -EBADF };

        (void) signal(SIGPIPE, SIG_IGN);
        parse_argv(&v, argc, argv);
        if (v.qmp < 0 || v.console < 0 || v.agent < 0)
                return 2;
        return run(&v);
}
