/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/capsule.h"
#include "daemon/core/manager.h"
#include "daemon/core/monitor-link.h"
#include "daemon/core/template.h"
#include "daemon/core/uid-pool.h"
#include "daemon/host/cgroup.h"
#include "daemon/host/slot.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define ACTIVE_TELL_USEC USEC_PER_SEC

static const char *const state_names[_CAPSULE_STATE_MAX] = {
        [CAPSULE_PENDING] = "pending",   [CAPSULE_STARTING] = "starting", [CAPSULE_RUNNING] = "running",
        [CAPSULE_PAUSING] = "pausing",   [CAPSULE_PAUSED] = "paused",     [CAPSULE_RESUMING] = "resuming",
        [CAPSULE_STOPPING] = "stopping", [CAPSULE_STOPPED] = "stopped",   [CAPSULE_ERROR] = "error",
};

const char* capsule_state_to_string(CapsuleState s) {
        assert(s >= 0 && s < _CAPSULE_STATE_MAX);
        return state_names[s];
}

CapsuleState capsule_state_from_string(const char *s) {
        for (CapsuleState i = 0; i < _CAPSULE_STATE_MAX; i++)
                if (streq(state_names[i], s))
                        return i;
        return _CAPSULE_STATE_INVALID;
}

void capsule_spec_done(CapsuleSpec *s) {
        free(s->template);
        free(s->name);
        free(s->team);
        free(s->key_id);
        strv_free(s->labels);
        strv_free(s->env);
        *s = (CapsuleSpec) {};
}

int capsule_new(Manager *m, const char *id, CapsuleSpec *spec, Capsule **ret) {
        _cleanup_(capsule_unrefp) Capsule *c = malloc(sizeof(Capsule));
        int r;

        if (!c)
                return -ENOMEM;

        *c = (Capsule) {
                .n_ref = 1,
                .manager = m,
                .state = CAPSULE_PENDING,
                .accelerator = _ACCELERATOR_INVALID,
                .monitor_pidfd = -EBADF,
                .vmm_pidfd = -EBADF,
        };

        if (id)
                (void) snprintf(c->id, sizeof(c->id), "%s", id);
        else {
                r = id_random("cl", c->id);
                if (r < 0)
                        return r;
        }
        c->unit = asprintf_null("wrenn-%s.scope", c->id);
        c->boot_id = strdup("");
        if (!c->unit || !c->boot_id)
                return -ENOMEM;

        c->spec = *spec;
        *spec = (CapsuleSpec) {};
        *ret = TAKE_PTR(c);
        return 0;
}

static void finish_waiters(Capsule *c, CapsuleWaiter **list, int r, const Fault *fault);

static void capsule_free(Capsule *c) {
        Fault fault = { .code = FAULT_CANCELED, .message = (char *) "wrennd is shutting down." };

        finish_waiters(c, &c->create_waiters, -ECANCELED, &fault);
        finish_waiters(c, &c->stop_waiters, -ECANCELED, &fault);
        event_source_free(c->active_timer);
        capsule_start_cancel(c);
        capsule_stop_free(c);
        monitor_link_free(c->link);
        capsule_unwatch(c);

        (void) slot_release(c->slot);
        if (c->template)
                (void) template_unref(c->template);
        capsule_spec_done(&c->spec);
        free(c->template_id);
        free(c->unit);
        free(c->message);
        free(c->boot_id);
        free(c->address);
        free(c->agent_version);
        free(c->end_status);
        fault_done(&c->start_fault);
        free(c);
}

Capsule* capsule_ref(Capsule *c) {
        c->n_ref++;
        return c;
}

Capsule* capsule_unref(Capsule *c) {
        if (c && --c->n_ref == 0)
                capsule_free(c);
        return NULL;
}

int capsule_register(Capsule *c) {
        int r;

        r = hashmap_put(c->manager->capsules, c->id, c);
        if (r < 0)
                return r;
        capsule_ref(c);
        return 0;
}

void capsule_forget(Capsule *c) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        if (!hashmap_get(c->manager->capsules, c->id))
                return;

        manager_event(c->manager, capsule_freed, c);
        (void) hashmap_remove(c->manager->capsules, c->id);
        if (store_delete_capsule(c->manager->store, c->id, /* durable= */ false, &fault) < 0)
                log_capsule(c->id, LOG_WARNING, 0, "Failed to forget a record, ignoring: %s", fault.message);
        (void) capsule_unref(c);
}

int capsule_save(Capsule *c, bool durable, Fault *reterr) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *labels = json_from_env(c->spec.labels);
        _cleanup_free_ char *text = labels ? json_dumps(labels, JSON_COMPACT) : NULL;
        int r;

        if (!text)
                return fault_set_errno(reterr, ENOMEM, "Failed to store the record");

        r = store_put_capsule(
                        c->manager->store,
                        &(CapsuleRow) {
                                        .id = c->id,
                                        .name = c->spec.name,
                                        .template = c->spec.template,
                                        .template_id = c->template_id,
                                        .team = c->spec.team,
                                        .key_id = c->spec.key_id,
                                        .labels = text,
                                        .state = capsule_state_to_string(c->state),
                                        .reason = end_reason_to_string(c->reason),
                                        .message = c->message,
                                        .boot_id = c->boot_id,
                                        .accelerator = c->accelerator < 0 ? ""
                                                                          : accelerator_to_string(
                                                                                            c->accelerator),
                                        .owner_uid = c->spec.owner_uid,
                                        .uid = c->uid,
                                        .slot_index = c->slot_index,
                                        .vcpus = c->spec.vcpus,
                                        .memory_bytes = c->spec.memory_bytes,
                                        .disk_bytes = c->spec.disk_bytes,
                                        .timeout_usec = c->spec.timeout_usec,
                                        .created_usec = c->created_usec,
                                        .started_usec = c->started_usec,
                                        .active_usec = c->active_usec,
                                        .updated_usec = c->updated_usec,
                        },
                        durable, &fault);
        if (r >= 0)
                return 0;

        log_capsule(c->id, LOG_WARNING, 0, "%s", fault.message);
        return fault_set(reterr, fault.code, "%s", fault.message);
}

void capsule_tell(Capsule *c, const char *const *properties) {
        manager_event(c->manager, capsule_changed, c, properties);
}

void capsule_set_state(Capsule *c, CapsuleState state) {
        bool was_running = c->state == CAPSULE_RUNNING;

        if (c->state == state)
                return;

        log_capsule(c->id, LOG_DEBUG, 0, "%s → %s", capsule_state_to_string(c->state),
                    capsule_state_to_string(state));
        c->state = state;
        c->updated_usec = now_usec(CLOCK_REALTIME);
        if (was_running != (state == CAPSULE_RUNNING)) {
                c->manager->n_running += was_running ? -1U : 1U;
                manager_changed(c->manager);
        }
        capsule_tell_one(c, "State", "LastUpdatedTimestamp");
}

void capsule_set_message(Capsule *c, const char *message) {
        if (streq_ptr(c->message, message))
                return;
        if (free_and_strdup(&c->message, message) >= 0)
                capsule_tell_one(c, "StatusMessage");
}

static int on_active_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Capsule *c = userdata;

        if (!c->active_told)
                capsule_tell_one(c, "LastActiveTimestamp");
        c->active_told = false;
        return 0;
}

/* Told at once, then at most once a second. */
void capsule_touch(Capsule *c, uint64_t realtime_usec) {
        int enabled = SD_EVENT_OFF;

        c->active_usec = MAX(c->active_usec, realtime_usec);
        if (c->active_timer)
                (void) sd_event_source_get_enabled(c->active_timer, &enabled);
        if (enabled != SD_EVENT_OFF) {
                c->active_told = false;
                return;
        }

        capsule_tell_one(c, "LastActiveTimestamp");
        c->active_told = true;
        (void) event_timer(c->manager->event, &c->active_timer, ACTIVE_TELL_USEC, PRIORITY_STATS,
                           on_active_timer, c, "activity");
}

static uint64_t memory_limit(const Capsule *c) {
        return c->spec.memory_bytes + c->manager->config.memory_overhead_bytes;
}

int capsule_reserve(Capsule *c, Fault *reterr) {
        Manager *m = c->manager;
        const Config *config = &m->config;
        char wanted[FORMAT_SIZE_LEN], budget[FORMAT_SIZE_LEN];

        assert(!c->reserved);

        if (m->n_capsules >= config->capsules_max)
                return fault_set(reterr, FAULT_NO_CAPACITY,
                                 "The host's limit of %u capsules is reached (MaxCapsules=).",
                                 config->capsules_max);
        if (memory_limit(c) > config->memory_budget_bytes ||
            m->memory_reserved > config->memory_budget_bytes - memory_limit(c))
                return fault_set(reterr, FAULT_NO_CAPACITY,
                                 "The host has no room for %s more, of %s in all (MemoryBudget=).",
                                 format_size(wanted, memory_limit(c)),
                                 format_size(budget, config->memory_budget_bytes));

        capsule_reserve_always(c);
        return 0;
}

void capsule_reserve_always(Capsule *c) {
        Manager *m = c->manager;

        m->n_capsules++;
        m->vcpus_reserved += c->spec.vcpus;
        m->memory_reserved += memory_limit(c);
        c->reserved_bytes = memory_limit(c);
        c->reserved = true;
        manager_changed(m);
}

void capsule_unreserve(Capsule *c) {
        if (!c->reserved)
                return;

        c->manager->n_capsules--;
        c->manager->vcpus_reserved -= c->spec.vcpus;
        c->manager->memory_reserved -= c->reserved_bytes;
        c->reserved = false;
        manager_changed(c->manager);
}

void capsule_give_back(Capsule *c) {
        c->slot = slot_release(c->slot);
        c->slot_index = 0;
        uid_pool_release(c->manager->uids, c->uid);
        c->uid = 0;
        c->spec.env = strv_free(c->spec.env);
        if (c->template)
                c->template = template_unref(c->template);
        capsule_unreserve(c);
}

/* --- processes ------------------------------------------------------------------------------- */

/* Either of the two ended. */
static int on_process_end(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_(capsule_unrefp) Capsule *c = capsule_ref(userdata);
        bool is_monitor = fd == c->monitor_pidfd;
        int status = -1, r;

        r = pidfd_reap(fd, &status);
        if (r == 0)
                return 0;

        log_capsule(c->id, LOG_DEBUG, 0, "The %s ended.", is_monitor ? "monitor" : "VMM");
        if (is_monitor) {
                c->monitor_source = event_source_free(c->monitor_source);
                c->monitor_pidfd = close_fd(c->monitor_pidfd);
                c->monitor_pid = 0;
                c->monitor_status = status;
        } else {
                c->vmm_source = event_source_free(c->vmm_source);
                c->vmm_pidfd = close_fd(c->vmm_pidfd);
                c->vmm_pid = 0;
        }

        if (c->stop)
                capsule_stop_on_process_end(c);
        else if (is_monitor && c->start)
                capsule_start_on_process_end(c);
        else if (is_monitor)
                capsule_on_unexpected_end(c);
        /* else: the monitor will tell more, and if not, end itself */
        return 0;
}

static int watch(Capsule *c, int pidfd, sd_event_source **source, const char *description) {
        return event_io(c->manager->event, source, pidfd, EPOLLIN, PRIORITY_EXIT, on_process_end, c,
                        description);
}

int capsule_watch_monitor(Capsule *c, pid_t pid) {
        assert(!c->monitor_source);

        if (c->monitor_pidfd < 0) {
                c->monitor_pidfd = pidfd_open_checked(pid);
                if (c->monitor_pidfd < 0)
                        return c->monitor_pidfd;
        }
        c->monitor_pid = pid;
        return watch(c, c->monitor_pidfd, &c->monitor_source, "monitor");
}

int capsule_watch_vmm(Capsule *c, pid_t pid) {
        if (c->vmm_source)
                return 0;

        c->vmm_pidfd = pidfd_open_checked(pid);
        if (c->vmm_pidfd < 0)
                return c->vmm_pidfd;
        c->vmm_pid = pid;
        return watch(c, c->vmm_pidfd, &c->vmm_source, "vmm");
}

void capsule_unwatch(Capsule *c) {
        c->monitor_source = event_source_free(c->monitor_source);
        c->vmm_source = event_source_free(c->vmm_source);
        c->monitor_pidfd = close_fd(c->monitor_pidfd);
        c->vmm_pidfd = close_fd(c->vmm_pidfd);
        c->monitor_pid = c->vmm_pid = 0;
}

bool capsule_processes_dead(const Capsule *c) {
        return c->monitor_pidfd < 0 && c->vmm_pidfd < 0;
}

int capsule_connect(Capsule *c) {
        _cleanup_free_ char *path = capsule_run_path(c, NULL);
        _cleanup_close_ int dir_fd = -EBADF, fd = -EBADF;
        int r;

        if (!path)
                return -ENOMEM;
        dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (dir_fd < 0)
                return -errno;
        fd = unix_connect(dir_fd, "control.sock", SOCK_STREAM);
        if (fd < 0)
                return fd;

        capsule_fail_requests(c);
        c->link = monitor_link_free(c->link);
        r = monitor_link_new(c, fd, &c->link);
        if (r >= 0)
                (void) TAKE_FD(fd);
        return r;
}

/* --- waiters --------------------------------------------------------------------------------- */

struct CapsuleWaiter {
        CapsuleWaiter *next;
        CapsuleDone done;
        void *userdata;
};

static int add_waiter(CapsuleWaiter **list, CapsuleDone done, void *userdata, Fault *reterr) {
        CapsuleWaiter *w;
        unsigned n = 0;

        for (; *list; list = &(*list)->next)
                n++;
        if (n >= CAPSULE_WAITERS_MAX)
                return fault_set(reterr, FAULT_NO_CAPACITY, "Too many callers wait for this capsule.");

        w = malloc(sizeof(CapsuleWaiter));
        if (!w)
                return fault_set_errno(reterr, ENOMEM, "Failed to wait for the capsule");
        *w = (CapsuleWaiter) { .done = done, .userdata = userdata };
        *list = w;
        return 0;
}

static void finish_waiters(Capsule *c, CapsuleWaiter **list, int r, const Fault *fault) {
        CapsuleWaiter *w;

        while ((w = *list)) {
                *list = w->next;
                w->done(c, r, fault, w->userdata);
                free(w);
        }
}

int capsule_add_create_waiter(Capsule *c, CapsuleDone done, void *userdata, Fault *reterr) {
        return add_waiter(&c->create_waiters, done, userdata, reterr);
}

int capsule_add_stop_waiter(Capsule *c, CapsuleDone done, void *userdata, Fault *reterr) {
        return add_waiter(&c->stop_waiters, done, userdata, reterr);
}

void capsule_remove_stop_waiter(Capsule *c, void *userdata) {
        for (CapsuleWaiter **i = &c->stop_waiters; *i; i = &(*i)->next)
                if ((*i)->userdata == userdata) {
                        CapsuleWaiter *w = *i;

                        *i = w->next;
                        free(w);
                        return;
                }
}

void capsule_finish_create(Capsule *c, int r, const Fault *fault) {
        finish_waiters(c, &c->create_waiters, r, fault);
}

void capsule_finish_stop(Capsule *c) {
        finish_waiters(c, &c->stop_waiters, 0, NULL);
}

/* --- lookups and paths ----------------------------------------------------------------------- */

Capsule* manager_find_capsule(Manager *m, const char *id, const char *team, Fault *reterr) {
        Capsule *c;

        if (!id_is_valid("cl", id)) {
                (void) fault_set(reterr, FAULT_INVALID_ARGS,
                                 "A capsule's id is 'cl-' and 25 characters 0-9, a-z.");
                return NULL;
        }

        c = hashmap_get(m->capsules, id);
        if (!c || (team && !streq_ptr(c->spec.team, team))) {
                (void) fault_set(reterr, FAULT_NOT_FOUND, "No capsule '%s'.", id);
                return NULL;
        }
        return c;
}

Capsule* manager_find_capsule_by_unit(Manager *m, const char *unit) {
        const char *id = startswith(unit, "wrenn-"), *end = id ? endswith(id, ".scope") : NULL;
        _cleanup_free_ char *copy = end ? strndup(id, (size_t) (end - id)) : NULL;

        return hashmap_get(m->capsules, copy);
}

char* capsule_run_path(const Capsule *c, const char *name) {
        return strjoin(c->manager->run_dir, "/capsules/", c->id, name ? "/" : "", strempty(name));
}

char* capsule_state_path(const Capsule *c, const char *name) {
        return strjoin(c->manager->state_dir, "/capsules/", c->id, name ? "/" : "", strempty(name));
}

char* capsule_slice(const Capsule *c) {
        return asprintf_null("wrenn-%s.slice", c->spec.team);
}

/* --- figures --------------------------------------------------------------------------------- */

uint64_t capsule_memory_current(const Capsule *c) {
        _cleanup_free_ char *slice = capsule_slice(c);

        return slice && !(CAPSULE_ENDED_BITS & STATE_BIT(c->state)) ? cgroup_memory_current(slice, c->unit)
                                                                    : 0;
}

uint64_t capsule_disk_usage(const Capsule *c) {
        _cleanup_free_ char *path = capsule_state_path(c, "layer.ext4");
        struct stat st;

        return path && stat(path, &st) >= 0 ? (uint64_t) st.st_blocks * 512 : 0;
}

const char* capsule_isolation(const Capsule *c) {
        return c->accelerator == ACCELERATOR_KVM ? "hardware" : "emulated";
}

int capsule_ping(Capsule *c, Fault *reterr) {
        if (c->state != CAPSULE_RUNNING)
                return fault_set(reterr, FAULT_INVALID_STATE, "The capsule is %s, not running.",
                                 capsule_state_to_string(c->state));

        capsule_touch(c, now_usec(CLOCK_REALTIME));
        return 0;
}

/* --- the table ------------------------------------------------------------------------------- */

void manager_free_capsules(Manager *m) {
        Capsule *c;

        while ((c = hashmap_first(m->capsules))) {
                (void) hashmap_remove(m->capsules, c->id);
                capsule_fail_requests(c);
                (void) capsule_unref(c);
        }
}

void manager_prune_capsules(Manager *m) {
        Capsule *c, *oldest = NULL;
        size_t n = 0;

        HASHMAP_FOREACH(c, m->capsules) {
                if (!(CAPSULE_ENDED_BITS & STATE_BIT(c->state)) || c->stop)
                        continue;
                n++;
                if (!oldest || c->updated_usec < oldest->updated_usec)
                        oldest = c;
        }

        if (n > CAPSULES_STOPPED_MAX)
                capsule_forget(oldest);
}
