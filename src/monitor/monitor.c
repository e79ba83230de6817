/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/agent-link.h"
#include "monitor/console.h"
#include "monitor/guest-calls.h"
#include "monitor/monitor.h"
#include "monitor/passthrough.h"
#include "monitor/vmm.h"
#include "shared/event.h"

typedef enum MonitorState {
        MONITOR_IDLE,
        MONITOR_STARTING,
        MONITOR_READY,
        MONITOR_AGENT_LOST,
        MONITOR_EXITED,
        _MONITOR_STATE_MAX,
} MonitorState;

static const char *const state_names[_MONITOR_STATE_MAX] = {
        [MONITOR_IDLE] = "idle",     [MONITOR_STARTING] = "starting",
        [MONITOR_READY] = "ready",   [MONITOR_AGENT_LOST] = "agent-lost",
        [MONITOR_EXITED] = "exited",
};

struct Monitor {
        sd_event *event; /* weak: outlives us */
        const char *id;
        int exit_fd;
        MonitorState state;
        Control *control;
        Passthrough *passthrough;
        Console *console;
        Vmm *vmm;
        AgentLink *agent;
        json_t *agent_info; /* NULL until it was ready once */
        json_t *config;     /* as given, without the identity */
        VmmEnd end;
        const char *given_up; /* why the agent was: a constant */
        ControlReply *start_reply;
        GuestCalls *calls;
        json_t *untold_exits; /* array: nobody was connected to hear of them */
        uint64_t started_usec, ready_usec, last_activity_usec; /* CLOCK_BOOTTIME */
        bool activity_untold;
        bool activity_pausing; /* an event went out less than MONITOR_ACTIVITY_USEC ago */
        sd_event_source *activity_timer, *poweroff_timer, *farewell_timer, *farewell_source;
};

static uint64_t now_boottime(void) {
        return now_usec(CLOCK_BOOTTIME);
}

/* Activity */

static bool has_open_streams(const Monitor *m) {
        return passthrough_n_streams(m->passthrough) > 0 || guest_calls_n_open(m->calls) > 0;
}

static int on_activity_timer(sd_event_source *s, uint64_t usec, void *userdata);

static void tell_activity(Monitor *m) {
        _cleanup_json_ json_t *body = json_pack("{s:I}", "boottime_usec",
                                                (json_int_t) m->last_activity_usec);

        m->activity_untold = false;
        m->activity_pausing = true;
        if (body)
                control_broadcast(m->control, CONTROL_EVENT_ACTIVITY, body);
        (void) event_timer(m->event, &m->activity_timer, MONITOR_ACTIVITY_USEC, PRIORITY_STATS,
                           on_activity_timer, m, "activity");
}

/* An open stream is activity as long as it is open. */
static int on_activity_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Monitor *m = userdata;

        m->activity_pausing = false;
        if (has_open_streams(m))
                m->last_activity_usec = now_boottime();
        else if (!m->activity_untold)
                return 0;
        tell_activity(m);
        return 0;
}

static void on_activity(void *userdata) {
        Monitor *m = userdata;

        m->last_activity_usec = now_boottime();
        m->activity_untold = true;
        if (!m->activity_pausing)
                tell_activity(m);
}

/* The end */

static json_t* end_to_json(const VmmEnd *e) {
        return json_pack("{s:s, s:s, s:s}", "reason", end_reason_to_string(e->reason), "status", e->status,
                         "message", strempty(e->message));
}

static void write_exit_file(Monitor *m, json_t *end) {
        _cleanup_free_ char *text = json_dumps(end, JSON_COMPACT);
        int r;

        if (m->exit_fd < 0)
                return;
        r = text ? write_all(m->exit_fd, text, strlen(text)) : -ENOMEM;
        if (r < 0)
                (void) log_capsule(m->id, LOG_WARNING, r, "Failed to write the exit file, ignoring: %m");
}

static int on_farewell(sd_event_source *s, void *userdata) {
        Monitor *m = userdata;

        return sd_event_exit(m->event, 0);
}

static int on_farewell_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        return on_farewell(s, userdata);
}

/* Leaves as soon as nothing else is to be done, or when a peer takes too long. */
static void monitor_leave(Monitor *m) {
        (void) event_timer(m->event, &m->farewell_timer, MONITOR_FAREWELL_USEC, PRIORITY_VMM,
                           on_farewell_timer, m, "farewell-limit");
        if (event_defer(m->event, &m->farewell_source, PRIORITY_GC, on_farewell, m) < 0)
                (void) sd_event_exit(m->event, 0);
}

static void drop_agent(Monitor *m) {
        passthrough_set_agent(m->passthrough, NULL);
        guest_calls_set_agent(m->calls, NULL);
        m->agent = agent_link_free(m->agent);
}

static void on_vmm_exited(Vmm *v, VmmEnd *end, void *userdata) {
        _cleanup_json_ json_t *body = NULL;
        Monitor *m = userdata;

        m->state = MONITOR_EXITED;
        m->end = *end;
        *end = (VmmEnd) {};
        if (m->end.reason == END_AGENT_LOST && !m->end.message)
                m->end.message = strdup(m->given_up);
        m->poweroff_timer = event_source_free(m->poweroff_timer);
        console_drain(m->console);
        drop_agent(m);
        m->vmm = vmm_free(v);

        (void) log_capsule(m->id, m->end.reason == END_VMM_CRASH ? LOG_WARNING : LOG_INFO, 0,
                           "The VMM ended with %s (%s).%s%s", m->end.status,
                           end_reason_to_string(m->end.reason), m->end.message ? " " : "",
                           strempty(m->end.message));
        body = end_to_json(&m->end);
        if (body) {
                write_exit_file(m, body);
                control_broadcast(m->control, CONTROL_EVENT_EXITED, body);
        }
        monitor_leave(m);
}

/* Agent */

static void on_agent_ready(AgentLink *l, json_t *info, void *userdata) {
        _cleanup_json_ json_t *body = NULL;
        Monitor *m = userdata;

        m->state = MONITOR_READY;
        m->ready_usec = now_boottime();
        m->last_activity_usec = m->ready_usec;
        if (m->agent_info)
                json_decref(m->agent_info);
        m->agent_info = json_incref(info);
        passthrough_set_agent(m->passthrough, l);
        guest_calls_set_agent(m->calls, l);

        (void) log_capsule(m->id, LOG_INFO, 0, "The agent is ready after %llu ms.",
                           (unsigned long long) ((m->ready_usec - m->started_usec) / USEC_PER_MSEC));
        body = json_pack("{s:I, s:O}", "boot_usec", (json_int_t) (m->ready_usec - m->started_usec), "agent",
                         info);
        if (body)
                control_broadcast(m->control, CONTROL_EVENT_READY, body);
}

static void on_agent_lost(AgentLink *l, const char *text, void *userdata) {
        _cleanup_json_ json_t *body = json_pack("{s:s}", "message", text);
        Monitor *m = userdata;

        m->state = MONITOR_AGENT_LOST;
        (void) log_capsule(m->id, LOG_WARNING, 0, "%s", text);
        if (body)
                control_broadcast(m->control, CONTROL_EVENT_AGENT_LOST, body);
}

/* Nothing can be asked of this capsule any more, not even to power off. */
static void on_agent_given_up(AgentLink *l, const char *text, void *userdata) {
        Monitor *m = userdata;

        m->given_up = text;
        if (m->vmm)
                (void) m->vmm->ops->kill(m->vmm, END_AGENT_LOST);
}

static const AgentLinkHandlers agent_handlers = {
        .on_ready = on_agent_ready,
        .on_lost = on_agent_lost,
        .on_given_up = on_agent_given_up,
};

/* Start */

static void on_vmm_started(Vmm *v, int r, const Fault *fault, void *userdata) {
        _cleanup_json_ json_t *ok = NULL;
        Monitor *m = userdata;
        ControlReply *reply = TAKE_PTR(m->start_reply);

        if (!reply)
                return;
        if (r < 0) {
                control_reply_fault(reply, fault);
                return;
        }
        ok = json_pack("{s:i}", "vmm_pid", (int) v->ops->pid(v));
        control_reply_ok(reply, ok, NULL, 0);
}

static const VmmHandlers vmm_handlers = {
        .on_started = on_vmm_started,
        .on_exited = on_vmm_exited,
};

static int attach_streams(Monitor *m, json_t *identity, Fault *reterr) {
        _cleanup_close_ int agent_fd = m->vmm->ops->take_agent_fd(m->vmm),
                            console_fd = m->vmm->ops->take_console_fd(m->vmm);
        int r;

        r = console_attach(m->console, console_fd);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to attach the console");
        (void) TAKE_FD(console_fd);
        r = agent_link_new(m->event, agent_fd, identity, &agent_handlers, m, &m->agent);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to attach the agent");
        (void) TAKE_FD(agent_fd);
        return 0;
}

static int monitor_start(Monitor *m, json_t *message, int *tap_fd, Fault *reterr) {
        _cleanup_(vmm_config_done) VmmConfig config = {};
        _cleanup_json_ json_t *shown = NULL;
        int r;

        if (m->state != MONITOR_IDLE)
                return fault_set(reterr, FAULT_INVALID_STATE, "The VMM was started already.");
        r = vmm_config_parse(json_object_get(message, "config"), &config, reterr);
        if (r < 0)
                return r;
        shown = json_copy(json_object_get(message, "config"));
        if (!shown)
                return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
        (void) json_object_del(shown, "identity");

        r = vmm_ops_find(config.backend)
                            ->start(m->event, &config, *tap_fd, &vmm_handlers, m, &m->vmm, reterr);
        if (r < 0)
                return r;
        *tap_fd = -EBADF;
        m->started_usec = now_boottime();
        m->last_activity_usec = m->started_usec;
        r = attach_streams(m, config.identity, reterr);
        if (r < 0) {
                m->vmm = vmm_free(m->vmm);
                return r;
        }
        m->config = TAKE_PTR(shown);
        m->state = MONITOR_STARTING;
        return 0;
}

void monitor_verb_start(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int none = -EBADF, r;

        r = monitor_start(m, message, n_fds > 0 ? &fds[0] : &none, &fault);
        if (r < 0)
                control_reply_fault(reply, &fault);
        else
                m->start_reply = reply;
}

/* Stop */

static int on_poweroff_timeout(sd_event_source *s, uint64_t usec, void *userdata) {
        Monitor *m = userdata;

        if (m->vmm)
                (void) m->vmm->ops->kill(m->vmm, END_USER);
        return 0;
}

/* A guest whose agent does not answer has nothing to say about its end. */
static void monitor_poweroff(Monitor *m, uint64_t timeout_usec) {
        if (!m->vmm) {
                if (m->state == MONITOR_IDLE)
                        monitor_leave(m);
                return;
        }
        m->vmm->ops->expect_exit(m->vmm, END_USER);
        if (timeout_usec == 0 || !agent_link_is_ready(m->agent) || agent_link_poweroff(m->agent) < 0 ||
            event_timer(m->event, &m->poweroff_timer, timeout_usec, PRIORITY_VMM, on_poweroff_timeout, m,
                        "poweroff") < 0)
                (void) m->vmm->ops->kill(m->vmm, END_USER);
}

void monitor_terminate(Monitor *m) {
        monitor_poweroff(m, MONITOR_SIGTERM_USEC);
}

static void reply_empty(ControlReply *reply) {
        _cleanup_json_ json_t *ok = json_object();

        control_reply_ok(reply, ok, NULL, 0);
}

void monitor_verb_poweroff(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        json_int_t timeout_usec = json_integer_value(json_object_get(message, "timeout_usec"));

        reply_empty(reply);
        monitor_poweroff(m, timeout_usec > 0 ? (uint64_t) timeout_usec : 0);
}

void monitor_verb_kill(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        const char *name = json_string_value(json_object_get(message, "reason"));
        EndReason reason = name ? end_reason_from_string(name) : END_USER;

        if (reason <= END_NONE) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                (void) fault_set(&fault, FAULT_INVALID_ARGS, "reason: there is no such reason.");
                control_reply_fault(reply, &fault);
                return;
        }
        reply_empty(reply);
        if (m->vmm)
                (void) m->vmm->ops->kill(m->vmm, reason);
        else if (m->state == MONITOR_IDLE)
                monitor_leave(m);
}

/* Describe */

static json_t* maybe(json_t *v) {
        return v ? json_incref(v) : json_null();
}

static void tell_untold_exits(Monitor *m) {
        json_t *body;
        size_t i;

        json_array_foreach(m->untold_exits, i, body)
                control_broadcast(m->control, CONTROL_EVENT_PROCESS_EXITED, body);
        (void) json_array_clear(m->untold_exits);
}

void monitor_verb_describe(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        _cleanup_json_ json_t *ok = NULL;
        uint64_t activity = has_open_streams(m) ? now_boottime() : m->last_activity_usec;

        ok = json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "id", m->id, "state",
                       state_names[m->state], "vmm_pid", m->vmm ? (int) m->vmm->ops->pid(m->vmm) : 0,
                       "started_boottime_usec", (json_int_t) m->started_usec, "ready_boottime_usec",
                       (json_int_t) m->ready_usec, "last_activity_boottime_usec", (json_int_t) activity,
                       "console_dropped_bytes", (json_int_t) console_dropped_bytes(m->console), "config",
                       maybe(m->config), "agent", maybe(m->agent_info), "exit",
                       m->state == MONITOR_EXITED ? end_to_json(&m->end) : json_null());
        if (!ok) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                (void) fault_set(&fault, FAULT_NO_MEMORY, "Out of memory.");
                control_reply_fault(reply, &fault);
                return;
        }
        control_reply_ok(reply, ok, NULL, 0);
        tell_untold_exits(m);
}

/* Calls into the guest */

static void on_call_event(const char *name, json_t *body, void *userdata) {
        Monitor *m = userdata;

        if (control_has_clients(m->control))
                control_broadcast(m->control, name, body);
        else if (streq(name, CONTROL_EVENT_PROCESS_EXITED) &&
                 json_array_size(m->untold_exits) < GUEST_PROCESSES_MAX)
                (void) json_array_append(m->untold_exits, body);
}

static const GuestCallsHandlers call_handlers = {
        .on_activity = on_activity,
        .on_event = on_call_event,
};

void monitor_verb_exec(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        guest_calls_exec(m->calls, message, fds, n_fds, reply);
}

void monitor_verb_attach(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        guest_calls_attach(m->calls, message, reply);
}

void monitor_verb_request(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        guest_calls_request(m->calls, message, fds, n_fds, reply);
}

void monitor_verb_cancel(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        guest_calls_cancel(m->calls, message, reply);
}

void monitor_peer_gone(Monitor *m, const void *peer) {
        guest_calls_peer_gone(m->calls, peer);
}

void monitor_verb_console(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *ok = json_object();
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = console_open_reader(m->console, &fd);
        if (r == -EMFILE)
                (void) fault_set(&fault, FAULT_QUOTA_EXCEEDED, "More than %u readers of the console.",
                                 CONSOLE_READERS_MAX);
        else if (r < 0)
                (void) fault_set_errno(&fault, r, "Failed to open the console");
        if (r < 0)
                control_reply_fault(reply, &fault);
        else
                control_reply_ok(reply, ok, &fd, 1);
}

/* Life */

Control* monitor_control(Monitor *m) {
        return m->control;
}

int monitor_new(sd_event *e, const char *id, const MonitorFds *fds, Monitor **ret) {
        Monitor *m;
        int r;

        m = malloc(sizeof(Monitor));
        if (!m)
                return -ENOMEM;
        *m = (Monitor) { .event = e, .id = id, .exit_fd = -EBADF };
        m->untold_exits = json_array();

        r = m->untold_exits ? guest_calls_new(e, &call_handlers, m, &m->calls) : -ENOMEM;
        if (r >= 0)
                r = console_new(e, fds->console, &m->console);
        if (r >= 0)
                r = passthrough_new(e, fds->data, on_activity, m, &m->passthrough);
        if (r >= 0)
                r = control_new(e, fds->control, m, &m->control);
        if (r < 0) {
                (void) monitor_free(m);
                return r;
        }
        m->exit_fd = fds->exit;
        *ret = m;
        return 0;
}

Monitor* monitor_free(Monitor *m) {
        if (!m)
                return NULL;

        m->activity_timer = event_source_free(m->activity_timer);
        m->poweroff_timer = event_source_free(m->poweroff_timer);
        m->farewell_timer = event_source_free(m->farewell_timer);
        m->farewell_source = event_source_free(m->farewell_source);
        if (m->passthrough)
                drop_agent(m);
        m->calls = guest_calls_free(m->calls);
        m->passthrough = passthrough_free(m->passthrough);
        m->vmm = vmm_free(m->vmm);
        m->console = console_free(m->console);
        m->control = control_free(m->control);
        if (m->agent_info)
                json_decref(m->agent_info);
        if (m->config)
                json_decref(m->config);
        json_decref(m->untold_exits);
        vmm_end_done(&m->end);
        (void) close_fd(m->exit_fd);
        free(m);
        return NULL;
}
