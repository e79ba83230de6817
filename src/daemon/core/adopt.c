/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/adopt.h"
#include "daemon/core/capsule.h"
#include "daemon/core/monitor-link.h"
#include "daemon/core/template.h"
#include "daemon/core/trash.h"
#include "daemon/core/uid-pool.h"
#include "daemon/host/cgroup.h"
#include "daemon/host/slot.h"
#include "daemon/host/systemd.h"
#include "shared/event.h"

#define DESCRIBE_TIMEOUT_USEC (3 * USEC_PER_SEC)
#define ADOPT_TIMEOUT_USEC    (20 * USEC_PER_SEC)
#define SWEEP_USEC            (30 * USEC_PER_SEC)
#define SCOPE_PATTERN         "wrenn-cl-*.scope"

/* One capsule that is asked to describe itself, or one scope that is taken down. */
typedef struct Item {
        Adoption *adoption;
        struct Item *next;
        Capsule *capsule; /* a reference; NULL: an orphan scope */
        JsonCall *describe;
        UnitCall *stop;
} Item;

struct Adoption {
        Manager *manager; /* weak: owns us */
        AdoptDone done;
        void *userdata;
        UnitCall *list;
        Item *items;
        sd_event_source *timer, *finish;
        unsigned n_adopted, n_removed;
};

static void item_free(Item *i) {
        for (Item **p = &i->adoption->items; *p; p = &(*p)->next)
                if (*p == i) {
                        *p = i->next;
                        break;
                }
        json_call_free(i->describe);
        unit_call_free(i->stop);
        (void) capsule_unref(i->capsule);
        free(i);
}

void manager_adopt_cancel(Manager *m) {
        Adoption *a = TAKE_PTR(m->adoption);

        if (!a)
                return;
        while (a->items)
                item_free(a->items);
        unit_call_free(a->list);
        event_source_free(a->timer);
        event_source_free(a->finish);
        free(a);
}

static int item_new(Adoption *a, Capsule *c, Item **ret) {
        Item *i = malloc(sizeof(Item));

        if (!i)
                return -ENOMEM;
        *i = (Item) { .adoption = a, .next = a->items, .capsule = c ? capsule_ref(c) : NULL };
        a->items = i;
        *ret = i;
        return 0;
}

static int on_finish(sd_event_source *source, void *userdata) {
        Adoption *a = userdata;
        Manager *m = a->manager;
        unsigned n_adopted = a->n_adopted, n_removed = a->n_removed;
        AdoptDone done = a->done;
        void *data = a->userdata;

        manager_adopt_cancel(m);
        done(m, 0, n_adopted, n_removed, data);
        return 0;
}

static void finish(Adoption *a) {
        if (event_defer(a->manager->event, &a->finish, PRIORITY_CLIENT, on_finish, a) < 0)
                log_error("Out of memory while starting up.");
}

static void item_done(Item *i) {
        Adoption *a = i->adoption;

        item_free(i);
        if (!a->items)
                finish(a);
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        log_warning("Not everything that was found at start-up is cleaned up yet, going on.");
        finish(userdata);
        return 0;
}

/* --- records --------------------------------------------------------------------------------- */

static int parse_labels(const char *text, char ***ret) {
        static const JsonField fields[] = { { .name = "labels", .parse = json_parse_map, .offset = 0 }, {} };
        _cleanup_json_ json_t *labels = NULL, *object = NULL;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = json_parse_text(text, strlen(text), &labels, &fault);
        if (r < 0)
                return r;
        object = json_pack("{s:O}", "labels", labels);
        return object ? json_dispatch(object, fields, ret, &fault) : -ENOMEM;
}

static int spec_from_row(const CapsuleRow *row, CapsuleSpec *ret) {
        *ret = (CapsuleSpec) {
                .template = strdup(row->template),
                .name = strdup(row->name),
                .team = strdup(row->team),
                .key_id = strdup(row->key_id),
                .owner_uid = (uid_t) row->owner_uid,
                .vcpus = (uint32_t) row->vcpus,
                .memory_bytes = row->memory_bytes,
                .disk_bytes = row->disk_bytes,
                .timeout_usec = row->timeout_usec,
        };
        if (!ret->template || !ret->name || !ret->team || !ret->key_id)
                return -ENOMEM;
        return parse_labels(row->labels, &ret->labels);
}

static int fill_from_row(Capsule *c, const CapsuleRow *row) {
        int r;

        c->state = capsule_state_from_string(row->state);
        c->reason = MAX(end_reason_from_string(row->reason), END_NONE);
        c->accelerator = accelerator_from_string(row->accelerator);
        c->uid = (uid_t) row->uid;
        c->slot_index = (unsigned) row->slot_index;
        c->created_usec = row->created_usec;
        c->started_usec = row->started_usec;
        c->active_usec = row->active_usec;
        c->updated_usec = row->updated_usec;

        r = free_and_strdup(&c->boot_id, row->boot_id);
        if (r >= 0)
                r = free_and_strdup(&c->template_id, row->template_id);
        if (r >= 0 && !isempty(row->message))
                r = free_and_strdup(&c->message, row->message);
        return r;
}

/* What it holds is counted from here on, until the stop flow gives it back. */
static void claim_for_living(Capsule *c) {
        Manager *m = c->manager;
        Template *t = manager_find_template_by_id(m, c->template_id);

        if (t)
                c->template = template_ref(t);
        if (c->uid > 0 && uid_pool_adopt(m->uids, c->uid) < 0)
                log_capsule(c->id, LOG_ERR, 0, "Its user id %u belongs to another capsule, too.", c->uid);
        capsule_reserve_always(c);
        if (c->state == CAPSULE_RUNNING)
                m->n_running++;
}

static int on_row(const CapsuleRow *row, void *userdata) {
        _cleanup_(capsule_spec_done) CapsuleSpec spec = {};
        _cleanup_(capsule_unrefp) Capsule *c = NULL;
        Manager *m = userdata;
        int r;

        r = id_is_valid("cl", row->id) && capsule_state_from_string(row->state) >= 0 &&
                                            team_is_valid(row->team)
                            ? 0
                            : -EBADMSG;
        if (r >= 0)
                r = spec_from_row(row, &spec);
        if (r >= 0)
                r = capsule_new(m, row->id, &spec, &c);
        if (r >= 0)
                r = fill_from_row(c, row);
        if (r >= 0)
                r = capsule_register(c);
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                (void) log_error_errno(r, "The record of '%s' cannot be read, leaving it alone: %m",
                                       row->id);
                return 0;
        }

        if (!(CAPSULE_ENDED_BITS & STATE_BIT(c->state)))
                claim_for_living(c);
        return 0;
}

/* --- one capsule ----------------------------------------------------------------------------- */

static void on_stopped(Capsule *c, int r, const Fault *fault, void *userdata) {
        Item *i = userdata;

        i->adoption->n_removed++;
        item_done(i);
}

/* Takes it down and waits for that. */
static void stop(Item *i, EndReason reason, bool error, const char *message) {
        Capsule *c = i->capsule;
        int r;

        if (message && !c->message)
                capsule_set_message(c, message);

        r = capsule_add_stop_waiter(c, on_stopped, i, NULL);
        if (r >= 0)
                r = capsule_stop_begin(c, reason, error);
        if (r < 0) {
                log_capsule(c->id, LOG_ERR, r, "Failed to clean up after it: %m");
                capsule_remove_stop_waiter(c, i);
                item_done(i);
        }
}

/* No scope of it: why? */
static void stop_without_scope(Item *i) {
        Capsule *c = i->capsule;

        if (c->state == CAPSULE_STOPPING)
                stop(i, c->reason != END_NONE ? c->reason : END_USER, false, NULL);
        else if (c->state == CAPSULE_PENDING || c->state == CAPSULE_STARTING)
                stop(i, END_LOST, true, "wrennd ended while the capsule was starting.");
        else if (!streq(c->boot_id, c->manager->boot_id))
                stop(i, END_HOST_REBOOT, false, NULL);
        else {
                (void) capsule_read_exit(c);
                stop(i, c->end_told != END_NONE ? c->end_told : END_LOST, false, NULL);
        }
}

typedef struct Description {
        char *state;
        uint64_t vmm_pid, activity_usec;
        json_t *agent, *exit;
        char *version;
} Description;

static void description_done(Description *d) {
        free(d->state);
        json_decref(d->agent);
        json_decref(d->exit);
        free(d->version);
}

static int parse_description(json_t *result, Description *ret, Fault *reterr) {
        static const JsonField fields[] = {
                { .name = "state",
                  .parse = json_parse_string,
                  .offset = offsetof(Description, state),
                  .flags = JSON_FIELD_MANDATORY,
                  .max = NAME_MAX_LEN },
                { .name = "vmm_pid",
                  .parse = json_parse_u64,
                  .offset = offsetof(Description, vmm_pid),
                  .max = INT32_MAX },
                { .name = "last_activity_boottime_usec",
                  .parse = json_parse_u64,
                  .offset = offsetof(Description, activity_usec) },
                { .name = "agent", .parse = json_parse_object, .offset = offsetof(Description, agent) },
                {},
        };
        static const JsonField agent_fields[] = {
                { .name = "version",
                  .parse = json_parse_string,
                  .offset = offsetof(Description, version),
                  .max = NAME_MAX_LEN },
                {},
        };
        int r;

        r = json_dispatch(result, fields, ret, reterr);
        if (r >= 0 && ret->agent)
                r = json_dispatch(ret->agent, agent_fields, ret, reterr);
        return r;
}

/* The two processes of the scope: the VMM is the one that the monitor names, the monitor the other. */
static int watch_processes(Capsule *c, pid_t vmm_pid) {
        _cleanup_free_ char *slice = capsule_slice(c);
        pid_t pids[CGROUP_PROCS_MAX], monitor = 0;
        bool found = false;
        size_t n;
        int r;

        if (!slice)
                return -ENOMEM;
        n = cgroup_processes(slice, c->unit, pids, ELEMENTSOF(pids));
        for (size_t i = 0; i < n; i++) {
                if (pids[i] == vmm_pid)
                        found = true;
                else if (monitor == 0)
                        monitor = pids[i];
        }
        if (!found || monitor == 0)
                return -ESRCH;

        r = capsule_watch_monitor(c, monitor);
        if (r >= 0)
                r = capsule_watch_vmm(c, vmm_pid);
        if (r < 0)
                capsule_unwatch(c);
        return r;
}

static void adopt_slot(Capsule *c) {
        int r;

        if (!c->manager->slots || c->slot_index == 0)
                return;
        r = slot_pool_adopt(c->manager->slots, c->slot_index, &c->slot);
        if (r >= 0)
                r = free_and_strdup(&c->address, slot_address(c->slot));
        if (r < 0)
                log_capsule(c->id, LOG_WARNING, r, "Its network is gone: %m");
}

static void adopt(Item *i, Description *d) {
        bool ready = !streq(d->state, "starting");
        Capsule *c = i->capsule;
        int r;

        r = watch_processes(c, (pid_t) d->vmm_pid);
        if (r < 0) {
                stop(i, END_LOST, false, "Its processes are not those of its scope.");
                return;
        }

        adopt_slot(c);
        free(c->agent_version);
        c->agent_version = TAKE_PTR(d->version);
        if (c->state != CAPSULE_RUNNING && capsule_start_resume(c, ready) < 0) {
                stop(i, END_LOST, true, "Out of memory.");
                return;
        }
        log_capsule(c->id, LOG_INFO, 0, "Found running, adopted.");
        i->adoption->n_adopted++;
        item_done(i);
}

static void on_described(JsonCall *call, int r, json_t *result, int *fds, size_t n_fds, const Fault *told,
                         void *userdata) {
        _cleanup_(description_done) Description d = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Item *i = userdata;
        Capsule *c = i->capsule;

        i->describe = json_call_free(i->describe);
        if (r >= 0)
                r = parse_description(result, &d, &fault);

        if (r < 0)
                stop(i, END_LOST, false, "Its monitor does not answer.");
        else if (streq(d.state, "exited")) {
                (void) capsule_read_exit(c);
                stop(i, c->end_told != END_NONE ? c->end_told : END_LOST, false, NULL);
        } else if (!streq(d.state, "ready") && !streq(d.state, "agent-lost"))
                stop(i, END_LOST, true, "wrennd ended while the capsule was starting.");
        else
                adopt(i, &d);
}

static void ask(Item *i) {
        Capsule *c = i->capsule;
        int r;

        r = capsule_connect(c);
        if (r >= 0)
                r = monitor_link_call(c->link, CONTROL_VERB_DESCRIBE, NULL, NULL, 0, DESCRIBE_TIMEOUT_USEC,
                                      on_described, i, &i->describe);
        if (r < 0)
                stop(i, END_LOST, false, "Its monitor is gone.");
}

/* --- the join -------------------------------------------------------------------------------- */

static const UnitInfo* find_unit(const UnitInfo *units, size_t n, const char *name) {
        for (size_t i = 0; i < n; i++)
                if (streq(units[i].name, name))
                        return units + i;
        return NULL;
}

static bool unit_runs(const UnitInfo *u) {
        return u && (streq(u->active_state, "active") || streq(u->active_state, "activating") ||
                     streq(u->active_state, "deactivating"));
}

static void join_capsule(Adoption *a, Capsule *c, const UnitInfo *unit) {
        Item *i;

        if (item_new(a, c, &i) < 0)
                return;

        c->scope_exists = unit;
        if (!unit_runs(unit))
                stop_without_scope(i);
        else if ((c->state == CAPSULE_RUNNING || c->state == CAPSULE_STARTING) &&
                 streq(c->boot_id, c->manager->boot_id))
                ask(i);
        else if (c->state == CAPSULE_STOPPING)
                stop(i, c->reason != END_NONE ? c->reason : END_USER, false, NULL);
        else
                stop(i, END_LOST, true, "wrennd ended while the capsule was starting.");
}

static void on_orphan_stopped(UnitCall *call, int r, const Fault *fault, void *userdata) {
        Item *i = userdata;

        if (r < 0)
                (void) log_error_errno(r, "Failed to stop an orphan scope, ignoring: %m");
        i->adoption->n_removed++;
        item_done(i);
}

static void stop_orphan(Adoption *a, const char *unit) {
        Systemd *s = a->manager->systemd;
        Item *i;

        log_warning("'%s' belongs to no capsule, stopping it.", unit);
        if (item_new(a, NULL, &i) < 0)
                return;
        (void) systemd_abandon_scope(s, unit);
        (void) systemd_kill_unit(s, unit, SIGKILL);
        if (systemd_stop_unit(s, unit, on_orphan_stopped, i, &i->stop) < 0)
                item_done(i);
}

/* Directories below dir that belong to no living capsule. */
static void remove_leftovers(Manager *m, int parent_fd, bool trash) {
        int fd = openat(parent_fd, "capsules", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent *de;
        DIR *d = fd < 0 ? NULL : fdopendir(fd);

        if (!d) {
                close_fd(fd);
                return;
        }

        while ((de = readdir(d))) {
                Capsule *c;
                int r;

                if (streq(de->d_name, ".") || streq(de->d_name, ".."))
                        continue;
                c = hashmap_get(m->capsules, de->d_name);
                if (c && !(CAPSULE_ENDED_BITS & STATE_BIT(c->state)))
                        continue;
                log_info("Removing the files of '%s', which is no capsule.", de->d_name);
                r = trash ? trash_put(m->trash, fd, de->d_name, /* durable= */ false)
                          : remove_tree_at(fd, de->d_name);
                if (r < 0)
                        (void) log_warning_errno(r, "Failed to remove them, ignoring: %m");
        }
        closedir(d);
}

static void on_listed(UnitCall *call, int r, const UnitInfo *units, size_t n_units, void *userdata) {
        Adoption *a = userdata;
        Manager *m = a->manager;
        Capsule *c;

        if (r < 0) {
                AdoptDone done = a->done;
                void *data = a->userdata;

                manager_adopt_cancel(m);
                done(m, r, 0, 0, data);
                return;
        }
        a->list = unit_call_free(a->list);

        remove_leftovers(m, m->run_fd, false);
        remove_leftovers(m, m->state_fd, true);

        /* nothing is added to the table and nothing finishes before the loop turns */
        HASHMAP_FOREACH(c, m->capsules)
                if (!(CAPSULE_ENDED_BITS & STATE_BIT(c->state)))
                        join_capsule(a, c, find_unit(units, n_units, c->unit));

        for (size_t i = 0; i < n_units; i++) {
                c = manager_find_capsule_by_unit(m, units[i].name);
                if (unit_runs(units + i) && (!c || CAPSULE_ENDED_BITS & STATE_BIT(c->state)))
                        stop_orphan(a, units[i].name);
        }

        if (!a->items)
                finish(a);
}

int manager_adopt(Manager *m, AdoptDone done, void *userdata, Fault *reterr) {
        Adoption *a;
        int r;

        r = store_load_capsules(m->store, on_row, m, reterr);
        if (r < 0)
                return r;

        a = malloc(sizeof(Adoption));
        if (!a)
                return -ENOMEM;
        *a = (Adoption) { .manager = m, .done = done, .userdata = userdata };
        m->adoption = a;

        r = systemd_list_units(m->systemd, SCOPE_PATTERN, on_listed, a, &a->list);
        if (r >= 0)
                r = event_timer(m->event, &a->timer, ADOPT_TIMEOUT_USEC, PRIORITY_CLIENT, on_timeout, a,
                                "adopt");
        if (r < 0) {
                manager_adopt_cancel(m);
                return fault_set_errno(reterr, r, "Failed to ask systemd for its units");
        }
        return 0;
}

/* --- afterwards ------------------------------------------------------------------------------ */

static int on_sweep(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;
        Capsule *c;

        HASHMAP_FOREACH(c, m->capsules)
                if (c->state == CAPSULE_RUNNING && !c->stop && (!c->link || monitor_link_closed(c->link)) &&
                    capsule_connect(c) < 0)
                        log_capsule(c->id, LOG_WARNING, 0, "Its monitor takes no connection.");

        return event_timer(m->event, &m->sweep_timer, SWEEP_USEC, PRIORITY_STATS, on_sweep, m, "sweep");
}

int manager_start_sweep(Manager *m) {
        return event_timer(m->event, &m->sweep_timer, SWEEP_USEC, PRIORITY_STATS, on_sweep, m, "sweep");
}
