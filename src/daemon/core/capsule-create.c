/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a create may ask for, and whether the host has room for it. All of it happens before anything is
 * made. */

#include <string.h>

#include "basic/fd.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/capsule.h"
#include "daemon/core/journal.h"
#include "daemon/core/manager.h"
#include "daemon/core/template.h"
#include "daemon/core/uid-pool.h"
#include "daemon/core/vmm.h"
#include "daemon/host/slot.h"

/* One of the table's lists, of "NAME=value". */
static int check_map(LimitId id, char *const *map, Fault *reterr) {
        const Limit *l = &limit_table[id];
        uint64_t total = 0;
        int r;

        r = limit_check_count(l, l->option, strv_length(map), reterr);
        STRV_FOREACH(i, map) {
                if (r >= 0)
                        r = limit_check_entry(l, l->option, strlen(*i), &total, reterr);
                if (r < 0)
                        return r;
                if (!strchr(*i, '=') || **i == '=')
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: an entry has no name.", l->option);
                if (!utf8_is_valid(*i, strlen(*i)))
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: an entry is not UTF-8.",
                                         l->option);
        }
        return r;
}

static int check_numbers(const CapsuleSpec *s, Fault *reterr) {
        const struct {
                LimitId id;
                uint64_t value;
        } numbers[] = {
                { LIMIT_VCPUS, s->vcpus },
                { LIMIT_MEMORY, s->memory_bytes },
                { LIMIT_DISK, s->disk_bytes },
                { LIMIT_TIMEOUT, s->timeout_usec },
        };
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(numbers) && r >= 0; i++) {
                const Limit *l = &limit_table[numbers[i].id];

                r = limit_check_number(l, l->option, numbers[i].value, reterr);
        }
        return r;
}

/* Fills what was left open. */
static int complete_spec(Manager *m, const Template *t, CapsuleSpec *s) {
        int r = 0;

        if (s->vcpus == 0)
                s->vcpus = t->default_vcpus ?: m->config.default_vcpus;
        if (s->memory_bytes == 0)
                s->memory_bytes = t->default_memory_bytes ?: m->config.default_memory_bytes;
        if (s->disk_bytes == 0)
                s->disk_bytes = m->config.default_disk_bytes;
        if (isempty(s->team))
                r = free_and_strdup(&s->team, "default");
        if (r >= 0 && !s->name)
                r = free_and_strdup(&s->name, "");
        if (r >= 0 && !s->key_id)
                r = free_and_strdup(&s->key_id, "");
        return r;
}

static int check_spec(const CapsuleSpec *s, Fault *reterr) {
        int r;

        r = check_numbers(s, reterr);
        if (r >= 0)
                r = check_map(LIMIT_LABELS, s->labels, reterr);
        if (r >= 0)
                r = check_map(LIMIT_CAPSULE_ENV, s->env, reterr);
        if (r >= 0)
                r = limit_check_text(&limit_table[LIMIT_CAPSULE_NAME], "Name", strlen(s->name), reterr);
        if (r >= 0 && !team_is_valid(s->team))
                r = fault_set(reterr, FAULT_INVALID_ARGS,
                              "Team: expected 1 to %u characters a-z, 0-9 and '_'.", TEAM_MAX_LEN);
        return r;
}

/* The template, by name, as far as the caller's team may use it. */
static int find_template(Manager *m, CapsuleSpec *s, Template **ret, Fault *reterr) {
        int r = 0;

        if (isempty(s->template))
                r = free_and_strdup(&s->template, m->config.default_template);
        if (r < 0)
                return r;
        if (!name_is_valid(s->template))
                return fault_set(
                                reterr, FAULT_INVALID_ARGS,
                                "template: expected a name of 1 to %u characters A-Z, a-z, 0-9, '.', '_', '-'.",
                                NAME_MAX_LEN);

        *ret = manager_find_template(m, s->template, s->team);
        if (!*ret)
                return template_missing(s->template, reterr);
        return 0;
}

/* What every start needs, looked at before anything is made: a client that does not wait hears of it, too.
 */
static int check_host(Manager *m, Accelerator *ret, Fault *reterr) {
        _cleanup_free_ char *kernel = NULL, *initrd = NULL;
        VmmChoice choice;
        int r;

        if (m->stopping)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE, "wrennd is shutting down.");
        if (!m->systemd || !m->slots)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "The network of the host is not set up; see the log of wrennd.");

        r = vmm_choose(m->vmm, &choice, reterr);
        if (r >= 0)
                r = vmm_find_kernel(m->vmm, &kernel, &initrd, reterr);
        if (r < 0)
                return r;

        *ret = choice.accelerator;
        return 0;
}

static int prepare(Manager *m, CapsuleSpec *spec, Capsule **ret, Fault *reterr) {
        _cleanup_(capsule_unrefp) Capsule *c = NULL;
        Accelerator accelerator = _ACCELERATOR_INVALID;
        Template *t = NULL;
        int r;

        r = find_template(m, spec, &t, reterr);
        if (r >= 0)
                r = complete_spec(m, t, spec);
        if (r >= 0)
                r = check_spec(spec, reterr);
        if (r >= 0)
                r = check_host(m, &accelerator, reterr);
        if (r >= 0)
                r = capsule_new(m, NULL, spec, &c);
        if (r < 0)
                return r;

        c->template = template_ref(t);
        c->accelerator = accelerator;
        c->created_usec = c->updated_usec = now_usec(CLOCK_REALTIME);
        r = free_and_strdup(&c->boot_id, m->boot_id);
        if (r >= 0)
                r = free_and_strdup(&c->template_id, t->id);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}

/* What there may be too little of, before the answer of a caller who does not wait. Given back by the stop
 * flow. */
static int claim(Capsule *c, Fault *reterr) {
        Manager *m = c->manager;
        int r;

        r = capsule_reserve(c, reterr);
        if (r >= 0)
                r = uid_pool_claim(m->uids, &c->uid, reterr);
        if (r >= 0)
                r = slot_pool_claim(m->slots, &c->slot, reterr);
        if (r < 0)
                return r;

        c->slot_index = slot_index(c->slot);
        return free_and_strdup(&c->address, slot_address(c->slot));
}

int capsule_create(Manager *m, CapsuleSpec *spec, CapsuleDone done, void *userdata, Capsule **ret,
                   Fault *reterr) {
        _cleanup_(capsule_unrefp) Capsule *c = NULL;
        int r;

        r = prepare(m, spec, &c, reterr);
        if (r < 0)
                return r;

        r = claim(c, reterr);
        if (r >= 0)
                r = capsule_save(c, /* durable= */ false, reterr);
        if (r >= 0)
                r = capsule_register(c);
        if (r >= 0)
                r = capsule_start_begin(c, reterr);
        if (r >= 0 && done)
                r = capsule_add_create_waiter(c, done, userdata, reterr);
        if (r < 0) {
                if (reterr && reterr->code == FAULT_NO_CAPACITY)
                        journal_capsule(c, JOURNAL_NO_ROOM, LOG_WARNING, "Refused: %s", reterr->message);
                capsule_start_cancel(c);
                capsule_give_back(c);
                capsule_forget(c);
                return r;
        }

        manager_event(m, capsule_new, c);
        journal_capsule(c, JOURNAL_CREATED, LOG_INFO, "Creating from template '%s' for team '%s'.",
                        c->spec.template, c->spec.team);
        *ret = c;
        return 0;
}
