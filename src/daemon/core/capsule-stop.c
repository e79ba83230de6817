/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The stop flow: the way out of every state, the undo of the start flow, and what start-up runs over what it
 * finds. Every step tolerates that its object was never made. Nothing that others may get (slot, uid,
 * memory) is given back before the last process is dead and its control group is gone; the answer to a
 * destroy comes after that.
 */

#include <signal.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/capsule.h"
#include "daemon/core/journal.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"
#include "daemon/core/trash.h"
#include "daemon/host/cgroup.h"
#include "daemon/host/systemd.h"
#include "shared/event.h"

#define KILL_AGAIN_USEC   (2 * USEC_PER_SEC)
#define GONE_POLL_USEC    (2 * USEC_PER_MSEC)
#define GONE_TIMEOUT_USEC (5 * USEC_PER_SEC)
#define SCOPE_TRIES_MAX   5U
#define SCOPE_AGAIN_USEC  USEC_PER_SEC

typedef enum StopStep {
        STOP_RECORD, /* what is meant is written down */
        STOP_REASON, /* an end nobody asked for: why? */
        STOP_KILL,   /* everything in the scope */
        STOP_SCOPE,  /* the unit */
        STOP_GONE,   /* its control group */
        STOP_FILES,  /* and all else */
        STOP_DONE,
} StopStep;

struct CapsuleStop {
        Capsule *capsule; /* weak: owns us */
        StopStep step;
        EndReason reason;
        bool error;   /* the last state is "error" */
        bool asked;   /* by a destroy, now or later */
        bool killing; /* in STOP_KILL, until the processes are dead */
        unsigned n_scope_tries;
        uint64_t gone_usec; /* CLOCK_MONOTONIC; deadline of STOP_GONE */
        sd_event_source *defer, *timer;
        UnitCall *call;
};

static void stop_advance(CapsuleStop *s);

void capsule_stop_free(Capsule *c) {
        CapsuleStop *s = TAKE_PTR(c->stop);

        if (!s)
                return;
        event_source_free(s->defer);
        event_source_free(s->timer);
        unit_call_free(s->call);
        free(s);
}

/* 1: go on at once, 0: somebody calls stop_advance(). */

static int step_record(CapsuleStop *s) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Capsule *c = s->capsule;

        capsule_set_state(c, CAPSULE_STOPPING);
        /* A failed write is logged and no reason to leave the capsule alive. */
        (void) capsule_save(c, /* durable= */ s->asked, &fault);
        return 1;
}

static void on_result(UnitCall *call, int r, const char *value, void *userdata) {
        CapsuleStop *s = userdata;

        s->call = unit_call_free(s->call);
        if (r >= 0 && streq_ptr(value, "oom-kill"))
                s->reason = END_OOM;
        stop_advance(s);
}

/* The kernel's count is there as long as the control group, PID 1's word as long as we hold a reference on
 * the unit. */
static int step_reason(CapsuleStop *s) {
        Capsule *c = s->capsule;
        _cleanup_free_ char *slice = capsule_slice(c);

        if (s->asked || !c->scope_exists || (s->reason != END_VMM_CRASH && s->reason != END_LOST))
                return 1;

        if (slice && cgroup_oom_kills(slice, c->unit) > 0) {
                s->reason = END_OOM;
                return 1;
        }
        if (!c->manager->systemd ||
            systemd_get_string(c->manager->systemd, c->unit, "org.freedesktop.systemd1.Scope", "Result",
                               on_result, s, &s->call) < 0)
                return 1;
        return 0;
}

static bool scope_is_empty(Capsule *c) {
        _cleanup_free_ char *slice = capsule_slice(c);
        pid_t pid;

        return !slice || cgroup_processes(slice, c->unit, &pid, 1) == 0;
}

static void kill_all(CapsuleStop *s) {
        Capsule *c = s->capsule;

        /* before it was released the launcher is root's; afterwards only PID 1 may kill it, we have no
         * CAP_KILL */
        if (c->monitor_pidfd >= 0)
                (void) pidfd_kill(c->monitor_pidfd, SIGKILL);
        if (c->scope_exists && c->manager->systemd)
                (void) systemd_kill_unit(c->manager->systemd, c->unit, SIGKILL);
}

static int on_kill_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        CapsuleStop *s = userdata;
        bool late = capsule_processes_dead(s->capsule);

        if (late && scope_is_empty(s->capsule)) {
                stop_advance(s);
                return 0;
        }

        if (!late)
                log_capsule(s->capsule->id, LOG_WARNING, 0, "Processes survived SIGKILL, trying again.");
        kill_all(s);
        (void) event_timer(s->capsule->manager->event, &s->timer, late ? GONE_POLL_USEC : KILL_AGAIN_USEC,
                           PRIORITY_VMM, on_kill_timer, s, "kill");
        return 0;
}

static int step_kill(CapsuleStop *s) {
        Capsule *c = s->capsule;
        bool dead = capsule_processes_dead(c);

        if (dead && scope_is_empty(c))
                return 1;

        s->killing = true;
        kill_all(s);
        if (event_timer(c->manager->event, &s->timer, dead ? GONE_POLL_USEC : KILL_AGAIN_USEC, PRIORITY_VMM,
                        on_kill_timer, s, "kill") < 0)
                return 1;
        return 0;
}

/* One of its processes ended, whatever step we are at. */
void capsule_stop_on_process_end(Capsule *c) {
        CapsuleStop *s = c->stop;

        if (!s->killing || !capsule_processes_dead(c))
                return;
        if (scope_is_empty(c))
                stop_advance(s);
        else
                (void) event_timer(c->manager->event, &s->timer, GONE_POLL_USEC, PRIORITY_VMM, on_kill_timer,
                                   s, "kill");
}

static int step_scope(CapsuleStop *s);

static int on_scope_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        CapsuleStop *s = userdata;

        if (step_scope(s) > 0)
                stop_advance(s);
        return 0;
}

static void on_scope_stopped(UnitCall *call, int r, const Fault *fault, void *userdata) {
        CapsuleStop *s = userdata;
        Capsule *c = s->capsule;

        s->call = unit_call_free(s->call);
        if (r < 0 && ++s->n_scope_tries < SCOPE_TRIES_MAX) {
                log_capsule(c->id, LOG_WARNING, r, "Failed to stop the scope, trying again: %s",
                            fault ? fault->message : "?");
                if (event_timer(c->manager->event, &s->timer, SCOPE_AGAIN_USEC, PRIORITY_VMM, on_scope_timer,
                                s, "scope") >= 0)
                        return;
        }
        stop_advance(s);
}

/* An abandoned scope is not asked politely: PID 1 finds it empty and lets it go at once. */
static int step_scope(CapsuleStop *s) {
        Capsule *c = s->capsule;

        if (!c->scope_exists || !c->manager->systemd)
                return 1;

        (void) systemd_abandon_scope(c->manager->systemd, c->unit);
        return systemd_stop_unit(c->manager->systemd, c->unit, on_scope_stopped, s, &s->call) < 0 ? 1 : 0;
}

static int on_gone_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        CapsuleStop *s = userdata;
        Capsule *c = s->capsule;
        _cleanup_free_ char *slice = capsule_slice(c);

        if (slice && cgroup_exists(slice, c->unit)) {
                if (now_usec(CLOCK_MONOTONIC) < s->gone_usec) {
                        (void) event_timer(c->manager->event, &s->timer, GONE_POLL_USEC, PRIORITY_VMM,
                                           on_gone_timer, s, "gone");
                        return 0;
                }
                log_capsule(c->id, LOG_ERR, 0, "The control group of '%s' does not go away.", c->unit);
        }
        stop_advance(s);
        return 0;
}

static int step_gone(CapsuleStop *s) {
        Capsule *c = s->capsule;
        _cleanup_free_ char *slice = capsule_slice(c);

        if (!c->scope_exists)
                return 1;

        if (c->manager->systemd) {
                (void) systemd_reset_failed(c->manager->systemd, c->unit);
                (void) systemd_unref_unit(c->manager->systemd, c->unit);
        }
        if (!slice || !cgroup_exists(slice, c->unit))
                return 1;

        s->gone_usec = now_usec(CLOCK_MONOTONIC) + GONE_TIMEOUT_USEC;
        return event_timer(c->manager->event, &s->timer, GONE_POLL_USEC, PRIORITY_VMM, on_gone_timer, s,
                           "gone") < 0;
}

static int remove_files(Capsule *c) {
        _cleanup_close_ int state = openat(c->manager->state_fd, "capsules",
                                           O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_close_ int run = openat(c->manager->run_fd, "capsules", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = 0, k;

        if (run >= 0)
                r = remove_tree_at(run, c->id);
        k = state < 0 ? -errno : trash_put(c->manager->trash, state, c->id, /* durable= */ true);
        return r < 0 ? r : k;
}

static int step_files(CapsuleStop *s) {
        Capsule *c = s->capsule;
        int r;

        capsule_fail_requests(c);
        c->link = monitor_link_free(c->link);
        capsule_unwatch(c);
        c->scope_exists = false;

        r = remove_files(c);
        if (r < 0)
                log_capsule(c->id, LOG_ERR, r, "Failed to remove its files, ignoring: %m");

        capsule_give_back(c);
        return 1;
}

static void stop_done(CapsuleStop *s) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL, canceled = FAULT_NULL;
        Capsule *c = s->capsule;
        bool asked = s->asked, error = s->error;

        if (c->reason == END_NONE)
                c->reason = s->reason;
        capsule_stop_free(c);

        if (c->address)
                c->address[0] = 0;
        capsule_set_state(c, error && !asked ? CAPSULE_ERROR : CAPSULE_STOPPED);
        capsule_tell_one(c, "StatusCode", "TerminationReason", "Leader", "VMMPID", "HostAddress");
        (void) capsule_save(c, /* durable= */ asked, &fault);
        journal_capsule(c, journal_event_of_end(c->reason), LOG_INFO, "Ended: %s%s%s.",
                        end_reason_to_string(c->reason), c->end_status ? ", " : "", strempty(c->end_status));
        manager_event(c->manager, capsule_removed, c, end_reason_to_string(c->reason));

        if (c->start_result < 0)
                capsule_finish_create(c, c->start_result, &c->start_fault);
        else {
                int r = fault_set(&canceled, FAULT_CANCELED,
                                  "The capsule was destroyed while it was starting.");

                capsule_finish_create(c, r, &canceled);
        }
        capsule_finish_stop(c);
        manager_prune_capsules(c->manager);
}

static void stop_advance(CapsuleStop *s) {
        _cleanup_(capsule_unrefp) Capsule *c = capsule_ref(s->capsule);
        int go_on = 1;

        s->killing = false;
        s->timer = event_source_free(s->timer);

        while (go_on)
                switch (s->step++) {
                case STOP_RECORD:
                        go_on = step_record(s);
                        break;
                case STOP_REASON:
                        go_on = step_reason(s);
                        break;
                case STOP_KILL:
                        go_on = step_kill(s);
                        break;
                case STOP_SCOPE:
                        go_on = step_scope(s);
                        break;
                case STOP_GONE:
                        go_on = step_gone(s);
                        break;
                case STOP_FILES:
                        go_on = step_files(s);
                        break;
                case STOP_DONE:
                        stop_done(s);
                        return;
                }
}

static int on_begin(sd_event_source *source, void *userdata) {
        stop_advance(userdata);
        return 0;
}

int capsule_stop_begin(Capsule *c, EndReason reason, bool error) {
        CapsuleStop *s;
        int r;

        if (c->stop)
                return 0;

        capsule_start_cancel(c);

        s = malloc(sizeof(CapsuleStop));
        if (!s)
                return -ENOMEM;
        *s = (CapsuleStop) { .capsule = c, .reason = reason, .error = error };

        r = event_defer(c->manager->event, &s->defer, PRIORITY_VMM, on_begin, s);
        if (r < 0) {
                free(s);
                return r;
        }

        c->stop = s;
        return 0;
}

int capsule_destroy(Capsule *c, EndReason reason, CapsuleDone done, void *userdata, Fault *reterr) {
        int r;

        if (c->state == CAPSULE_STOPPED)
                return 1;
        if (c->state == CAPSULE_ERROR) {
                capsule_set_state(c, CAPSULE_STOPPED);
                r = capsule_save(c, /* durable= */ true, reterr);
                return r < 0 ? r : 1;
        }

        if (done) {
                r = capsule_add_stop_waiter(c, done, userdata, reterr);
                if (r < 0)
                        return r;
        }

        r = capsule_stop_begin(c, reason, /* error= */ false);
        if (r < 0) {
                capsule_remove_stop_waiter(c, userdata);
                return fault_set_errno(reterr, r, "Failed to stop the capsule");
        }
        c->stop->asked = true;
        return 0;
}

/* The call floats on the link, which ends before the capsule does. */
static void on_poweroff(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault,
                        void *userdata) {
        Capsule *c = userdata;

        if (r < 0 && c->state == CAPSULE_RUNNING)
                (void) capsule_destroy(c, c->end_wanted, NULL, NULL, NULL);
}

int capsule_poweroff(Capsule *c, EndReason reason, Fault *reterr) {
        _cleanup_json_ json_t *body = NULL;
        int r;

        /* PID 1 kills what is left after the whole time */
        body = json_pack("{s:I}", "timeout_usec",
                         (json_int_t) (c->manager->config.stop_timeout_usec / 4 * 3));
        if (c->state == CAPSULE_RUNNING && c->link && body) {
                r = monitor_link_call(c->link, CONTROL_VERB_POWEROFF, body, NULL, 0,
                                      MONITOR_CALL_TIMEOUT_USEC, on_poweroff, c, NULL);
                if (r >= 0) {
                        c->end_wanted = reason;
                        return 0;
                }
        }

        r = capsule_destroy(c, reason, NULL, NULL, reterr);
        return r < 0 ? r : 0;
}

/* --- ends that nobody asked for -------------------------------------------------------------- */

/* The monitor's last words. Its own end follows. */
void capsule_on_exited(Capsule *c, const char *reason, const char *status, const char *message) {
        EndReason r = end_reason_from_string(reason);

        c->end_told = r > END_NONE ? r : END_VMM_CRASH;
        if (!isempty(status))
                (void) free_and_strdup(&c->end_status, status);
        if (!isempty(message) && !c->stop)
                capsule_set_message(c, message);

        if (c->state == CAPSULE_RUNNING)
                capsule_on_unexpected_end(c);
}

void capsule_on_unexpected_end(Capsule *c) {
        EndReason reason;

        if (c->stop || (CAPSULE_ENDED_BITS & STATE_BIT(c->state)))
                return;

        /* its last words may not have been read yet, but they are in the file */
        if (c->end_told == END_NONE)
                (void) capsule_read_exit(c);
        reason = c->end_told != END_NONE ? c->end_told : END_LOST;
        if (c->end_wanted != END_NONE)
                reason = c->end_wanted;
        else
                log_capsule(c->id, LOG_WARNING, 0, "It ended unexpectedly (%s).",
                            end_reason_to_string(reason));
        if (capsule_stop_begin(c, reason, /* error= */ false) < 0)
                log_capsule(c->id, LOG_ERR, ENOMEM, "Failed to clean up after it: %m");
}
