/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/host/worker-unit.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define WORKER_TASKS_MAX UINT64_C(1024)
#define WORKER_NICE      5
#define BIND_RECURSIVE   UINT64_C(16384) /* MS_REC */

struct WorkerUnit {
        Systemd *systemd; /* weak: outlives us */
        sd_event *event;
        char *unit;
        const WorkerHandlers *handlers;
        void *userdata;

        UnitCall *call; /* start, then stop */
        sd_event_source *output_source, *deadline;
        int output_fd; /* read end of the worker's stdout */
        char *buffer;  /* begun line */
        size_t n_buffer;

        bool stopping;
        bool cancelled;
        json_t *result; /* the worker said so */
        Fault fault;
};

/* --- the unit's properties ------------------------------------------------------------------- */

typedef struct Properties {
        const WorkerSpec *spec;
        int stdin_fd, stdout_fd;
} Properties;

static int append_strings(sd_bus_message *m) {
        static const char *const pairs[][2] = {
                { "Type", "exec" },
                /* it is the pipe; were it "journal" as well, stderr would follow it there */
                { "StandardOutput", "null" },
                { "StandardError", "journal" },
                { "SyslogIdentifier", "wrenn-worker" },
                { "ProtectSystem", "strict" },
                { "ProtectHome", "yes" },
                { "DevicePolicy", "closed" },
                { "KillMode", "control-group" },
                { "CollectMode", "inactive-or-failed" },
                { "KeyringMode", "private" },
        };
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(pairs) && r >= 0; i++)
                r = sd_bus_message_append(m, "(sv)", pairs[i][0], "s", pairs[i][1]);
        return r;
}

static int append_numbers(sd_bus_message *m, const WorkerSpec *spec) {
        /* root of the host has what unpacking needs, the launcher what mapping a user namespace needs */
        const uint64_t capabilities = spec->userns_first != 0
                                                      ? (UINT64_C(1) << CAP_SETUID) |
                                                                        (UINT64_C(1) << CAP_SETGID) |
                                                                        (UINT64_C(1) << CAP_KILL)
                                                      : (UINT64_C(1) << CAP_SETUID) |
                                                                        (UINT64_C(1) << CAP_SETGID) |
                                                                        (UINT64_C(1) << CAP_KILL) |
                                                                        (UINT64_C(1) << CAP_CHOWN) |
                                                                        (UINT64_C(1) << CAP_DAC_OVERRIDE) |
                                                                        (UINT64_C(1) << CAP_FOWNER) |
                                                                        (UINT64_C(1) << CAP_FSETID);
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                { "CapabilityBoundingSet", capabilities },
                { "MemoryMax", spec->memory_max_bytes },
                { "TasksMax", WORKER_TASKS_MAX },
                { "RuntimeMaxUSec", spec->runtime_max_usec },
                { "CPUWeight", 50 },
                { "IOWeight", 50 },
                { "LimitCORE", 0 },
        };
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(numbers) && r >= 0; i++)
                r = sd_bus_message_append(m, "(sv)", numbers[i].name, "t", numbers[i].value);
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)(sv)", "KillSignal", "i", (int32_t) SIGKILL, "Nice", "i",
                                          (int32_t) WORKER_NICE);
        return r;
}

static int append_switches(sd_bus_message *m, const WorkerSpec *spec) {
        const struct {
                const char *name;
                bool value;
        } switches[] = {
                { "PrivateTmp", true },
                { "PrivateDevices", true },
                { "NoNewPrivileges", true },
                { "ProtectClock", true },
                { "ProtectControlGroups", true },
                { "ProtectKernelModules", true },
                { "ProtectKernelLogs", true },
                { "LockPersonality", true },
                { "RestrictRealtime", true },
                /* masks parts of /proc, and then a user namespace cannot mount one of its own */
                { "ProtectKernelTunables", spec->userns_first == 0 },
                { "PrivateNetwork", !spec->network },
        };
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(switches) && r >= 0; i++)
                r = sd_bus_message_append(m, "(sv)", switches[i].name, "b", (int) switches[i].value);
        return r;
}

static int append_paths(sd_bus_message *m, const WorkerSpec *spec) {
        int r;

        r = sd_bus_message_append(m, "(sv)", "TemporaryFileSystem", "a(ss)", 1, "/run/wrenn", "mode=0755");
        if (r >= 0 && spec->directory)
                r = sd_bus_message_append(m, "(sv)", "BindPaths", "a(ssbt)", 1, spec->directory,
                                          WORKER_DIRECTORY, 0, BIND_RECURSIVE);
        return r;
}

static int append_command(sd_bus_message *m, const WorkerSpec *spec) {
        char range[64];

        if (spec->userns_first == 0)
                return sd_bus_message_append(m, "(sv)", "ExecStart", "a(sasb)", 1, spec->worker, 1,
                                             spec->worker, 0);

        (void) snprintf(range, sizeof(range), "--userns=%u:%u", spec->userns_first, JOB_UID_COUNT);
        return sd_bus_message_append(m, "(sv)", "ExecStart", "a(sasb)", 1, spec->launcher, 4, spec->launcher,
                                     range, "--", spec->worker, 0);
}

static int fill_properties(sd_bus_message *m, void *userdata) {
        const Properties *p = userdata;
        int r;

        r = sd_bus_message_append(m, "(sv)(sv)(sv)", "Description", "s", p->spec->description,
                                  "StandardInputFileDescriptor", "h", p->stdin_fd,
                                  "StandardOutputFileDescriptor", "h", p->stdout_fd);
        if (r >= 0)
                r = append_strings(m);
        if (r >= 0)
                r = append_numbers(m, p->spec);
        if (r >= 0)
                r = append_switches(m, p->spec);
        if (r >= 0)
                r = append_paths(m, p->spec);
        return r < 0 ? r : append_command(m, p->spec);
}

/* --- its end --------------------------------------------------------------------------------- */

static void complete(WorkerUnit *w) {
        const char *why = w->cancelled ? "The job was cancelled."
                                       : "The worker ended without a result; see its log: journalctl -u";

        w->deadline = event_source_free(w->deadline);
        if (w->result && !w->cancelled && !fault_is_set(&w->fault)) {
                w->handlers->on_done(w, 0, w->result, &w->fault, w->userdata);
                return;
        }

        if (w->cancelled)
                fault_done(&w->fault);
        if (!fault_is_set(&w->fault) && w->cancelled)
                (void) fault_set(&w->fault, FAULT_CANCELED, "%s", why);
        else if (!fault_is_set(&w->fault))
                (void) fault_set(&w->fault, FAULT_INTERNAL, "%s %s", why, w->unit);
        w->handlers->on_done(w, fault_errno(w->fault.code), NULL, &w->fault, w->userdata);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata);

static void on_stopped(UnitCall *call, int r, const Fault *fault, void *userdata) {
        WorkerUnit *w = userdata;

        w->call = unit_call_free(w->call);
        if (r < 0) {
                /* something may still run there: nobody may take its files over. Try again until PID 1
                 * answers. */
                (void) log_warning_errno(r, "Failed to stop '%s', trying again: %m", w->unit);
                r = event_timer(w->event, &w->deadline, USEC_PER_SEC, PRIORITY_CLIENT, on_deadline, w,
                                "worker-stop");
                if (r >= 0)
                        return;
        }
        complete(w);
}

static void stop_unit(WorkerUnit *w) {
        int r;

        r = systemd_stop_unit(w->systemd, w->unit, on_stopped, w, &w->call);
        if (r < 0)
                r = event_timer(w->event, &w->deadline, USEC_PER_SEC, PRIORITY_CLIENT, on_deadline, w,
                                "worker-stop");
        if (r < 0)
                (void) log_error_errno(r, "Failed to stop '%s': %m", w->unit);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        stop_unit(userdata);
        return 0;
}

/* Whatever led here: stop what is left of the unit, then tell. */
static void finish(WorkerUnit *w) {
        w->output_source = event_source_free(w->output_source);
        w->output_fd = close_fd(w->output_fd);
        if (w->stopping)
                return;
        w->stopping = true;
        if (!w->call) /* else on_started() goes on */
                stop_unit(w);
}

static void on_started(UnitCall *call, int r, const Fault *fault, void *userdata) {
        WorkerUnit *w = userdata;

        w->call = unit_call_free(w->call);
        if (r < 0 && !w->result && !fault_is_set(&w->fault))
                (void) fault_set(&w->fault, fault && fault_is_set(fault) ? fault->code : FAULT_INTERNAL,
                                 "%s",
                                 fault && fault_is_set(fault) ? fault->message
                                                              : "Failed to start the worker.");
        if (w->stopping)
                stop_unit(w);
        else if (r < 0)
                finish(w);
}

/* --- what the worker says -------------------------------------------------------------------- */

static void take_error(WorkerUnit *w, json_t *error) {
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *message = json_string_value(json_object_get(error, "message"));

        (void) fault_set(&w->fault, fault_from_wire_name(strempty(code)), "%s",
                         message ?: "The job failed.");
}

static void take_line(WorkerUnit *w, const char *line, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *object = NULL;
        json_t *progress, *result, *error;
        const char *step;

        if (json_parse_text(line, n, &object, &fault) < 0) {
                log_warning("'%s' said what is no JSON, ignoring: %s", w->unit, strempty(fault.message));
                return;
        }

        progress = json_object_get(object, "progress");
        result = json_object_get(object, "result");
        error = json_object_get(object, "error");
        step = json_string_value(json_object_get(object, "step"));
        if (json_is_number(progress) && !w->stopping)
                w->handlers->on_progress(w, json_number_value(progress), strempty(step), w->userdata);
        else if (json_is_object(result) && !w->result)
                w->result = json_incref(result);
        else if (json_is_object(error))
                take_error(w, error);
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        WorkerUnit *w = userdata;
        char *line = w->buffer, *newline;
        ssize_t n;

        n = read(fd, w->buffer + w->n_buffer, WORKER_LINE_MAX - w->n_buffer);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                finish(w);
                return 0;
        }

        w->n_buffer += (size_t) n;
        while ((newline = memchr(line, '\n', w->n_buffer - (size_t) (line - w->buffer)))) {
                take_line(w, line, (size_t) (newline - line));
                line = newline + 1;
        }
        w->n_buffer -= (size_t) (line - w->buffer);
        memmove(w->buffer, line, w->n_buffer);
        if (w->n_buffer == WORKER_LINE_MAX) {
                (void) fault_set(&w->fault, FAULT_INTERNAL, "The worker says too much.");
                finish(w);
        }
        return 0;
}

/* --- its start ------------------------------------------------------------------------------- */

/* Puts the request, and fd if there is one, into a socket whose other end becomes the worker's stdin. */
static int send_request(const WorkerSpec *spec, int *ret_stdin) {
        _cleanup_close_ int ours = -EBADF, theirs = -EBADF;
        _cleanup_free_ char *text = NULL;
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct msghdr message = {};
        struct iovec iov;
        int fds[2];

        text = json_dumps(spec->request, JSON_COMPACT);
        if (!text)
                return -ENOMEM;
        iov = (struct iovec) { text, strlen(text) };
        if (iov.iov_len > WORKER_REQUEST_MAX)
                return -E2BIG;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        ours = fds[0];
        theirs = fds[1];

        message.msg_iov = &iov;
        message.msg_iovlen = 1;
        if (spec->fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                control.header = (struct cmsghdr) { .cmsg_level = SOL_SOCKET,
                                                    .cmsg_type = SCM_RIGHTS,
                                                    .cmsg_len = CMSG_LEN(sizeof(int)) };
                memcpy(CMSG_DATA(&control.header), &spec->fd, sizeof(int));
        }
        if (sendmsg(ours, &message, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) iov.iov_len)
                return errno != 0 ? -errno : -EIO;

        *ret_stdin = TAKE_FD(theirs);
        return 0;
}

static int worker_unit_new(Systemd *s, sd_event *e, const WorkerSpec *spec, const WorkerHandlers *handlers,
                           void *userdata, WorkerUnit **ret) {
        _cleanup_(worker_unit_freep) WorkerUnit *w = calloc(1, sizeof(WorkerUnit));

        if (!w)
                return -ENOMEM;
        *w = (WorkerUnit) {
                .systemd = s,
                .event = sd_event_ref(e),
                .unit = strdup(spec->unit),
                .handlers = handlers,
                .userdata = userdata,
                .output_fd = -EBADF,
                .buffer = malloc(WORKER_LINE_MAX),
                .stopping = true, /* nothing runs yet */
        };
        if (!w->unit || !w->buffer)
                return -ENOMEM;
        *ret = TAKE_PTR(w);
        return 0;
}

int worker_unit_start(Systemd *s, sd_event *e, const WorkerSpec *spec, const WorkerHandlers *handlers,
                      void *userdata, WorkerUnit **ret) {
        _cleanup_(worker_unit_freep) WorkerUnit *w = NULL;
        _cleanup_close_ int stdin_fd = -EBADF, stdout_fd = -EBADF;
        int fds[2], r;

        r = worker_unit_new(s, e, spec, handlers, userdata, &w);
        if (r < 0)
                return r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        w->output_fd = fds[0];
        stdout_fd = fds[1];
        r = fd_nonblock(w->output_fd, true);
        if (r >= 0)
                r = event_io(e, &w->output_source, w->output_fd, EPOLLIN, PRIORITY_CLIENT, on_output, w,
                             "worker-output");
        if (r >= 0)
                r = send_request(spec, &stdin_fd);
        if (r >= 0)
                r = systemd_start_transient(s, spec->unit, fill_properties,
                                            &(Properties) { .spec = spec,
                                                            .stdin_fd = stdin_fd,
                                                            .stdout_fd = stdout_fd },
                                            on_started, w, &w->call);
        if (r < 0)
                return r;

        w->stopping = false;
        *ret = TAKE_PTR(w);
        return 0;
}

void worker_unit_cancel(WorkerUnit *w) {
        w->cancelled = true;
        finish(w);
}

WorkerUnit* worker_unit_free(WorkerUnit *w) {
        if (!w)
                return NULL;

        w->output_source = event_source_free(w->output_source);
        w->deadline = event_source_free(w->deadline);
        w->call = unit_call_free(w->call);
        if (!w->stopping)
                (void) systemd_kill_unit(w->systemd, w->unit, SIGKILL);
        close_fd(w->output_fd);
        json_decref(w->result);
        fault_done(&w->fault);
        sd_event_unref(w->event);
        free(w->buffer);
        free(w->unit);
        free(w);
        return NULL;
}
