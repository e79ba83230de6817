/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The D-Bus front end: name, root object, object manager, one file of vtables per noun. A noun's file
 * exports
 *   - a BusNoun: the vtable of its own interface, how an object is found below BUS_PATH "/<kind>", and an
 * enumerator of its paths;
 *   - a vtable of its methods and signals of the Manager interface (several vtables of one interface on one
 * path are joined by sd-bus). bus-server.c lists them in tables. Handlers translate and reply, nothing else;
 * the rules are core's.
 */

#include <systemd/sd-bus.h>

#include "basic/fault.h"
#include "basic/limits.h"
#include "daemon/core/manager.h"
#include "daemon/host/polkit.h"

typedef struct BusServer {
        Manager *manager; /* weak: outlives us */
        sd_bus *bus;
        Polkit *polkit;
        sd_bus_slot *name_call;
        bool has_name;
        sd_bus_message *untold[UNTOLD_EXITS_MAX]; /* signals for when it has */
        size_t n_untold;
} BusServer;

/*
 * Exports everything on bus and becomes the Manager's events. The name is taken by bus_server_take_name().
 * trusted_uid: of wrenn-rest, or UID_UNKNOWN.
 */
int bus_server_new(Manager *m, sd_bus *bus, uid_t trusted_uid, BusServer **ret);
BusServer* bus_server_free(BusServer *s);
DEFINE_CLEANUP(BusServer, bus_server_free)

/* Requests BUS_NAME; a failure to get it, or its loss, ends the loop with its errno. */
int bus_server_take_name(BusServer *s);

/* Sends a signal, once we have the name: who listens to it would not hear it before. Takes a reference. */
int bus_server_tell(BusServer *s, sd_bus_message *signal);

/* --- for the handlers (bus-util.c) ----------------------------------------------------------- */

/* Turns (r, fault) into a D-Bus error; returns a negative errno for the vtable. r < 0 without a fault
 * becomes FAULT_INTERNAL. */
int bus_error_from_fault(sd_bus_error *error, int r, const Fault *fault);
/* Answers a message that waited, by that error. */
void bus_reply_fault(sd_bus_message *m, int r, const Fault *fault);

/* Who calls, and the team a call is confined to. */
typedef struct BusCaller {
        uid_t uid;
        char *team;   /* owned; NULL: an administrator, not confined */
        char *key_id; /* owned; NULL: none */
} BusCaller;
void bus_caller_done(BusCaller *c);

/*
 * polkit_authorize() for "dev.wrenn.capsules1.<verb>" and the rule for Team and KeyId (root and wrenn-rest
 * only). caller->team and key_id come from bus_read_options(); uid is filled here. 1: go on; 0: asked,
 * return 1 from the handler; < 0: error is set.
 */
int bus_authorize(BusServer *s, sd_bus_message *m, const char *verb, const char *const *details,
                  BusCaller *caller, sd_bus_error *error);

/*
 * One member of an a{sv}. type: 's' char * (replaced), 'b' bool, 'u' uint32_t, 't' uint64_t, 'S' char **
 * from "as", 'E' char ** of "NAME=value" from a{ss}.
 */
typedef struct BusOption {
        const char *name; /* NULL ends the table */
        char type;
        size_t offset;
} BusOption;

/*
 * Reads an a{sv} into target by the table; Team and KeyId go to caller (NULL: they are not known here). An
 * unknown or doubled member or another type: FAULT_INVALID_ARGS that names it. What was read stays filled on
 * failure. options: NULL for none.
 */
int bus_read_options(sd_bus_message *m, const BusOption *options, void *target, BusCaller *caller,
                     Fault *reterr);
/* The same for a plain a{ss}: "NAME=value" strings, more than any option may have. */
int bus_read_string_map(sd_bus_message *m, char ***ret, Fault *reterr);
/* Appends "NAME=value" strings as a{ss}. */
int bus_append_string_map(sd_bus_message *m, char *const *map);

/* Object path of a child: BUS_PATH "/<kind>/<encoded name>". 0 or -ENOMEM. */
int bus_object_path(const char *kind, const char *name, char **ret);
/* The name out of such a path: 1 and *ret (owned), 0 when it is none, -ENOMEM. */
int bus_object_name(const char *path, const char *kind, char **ret);

/* --- what the nouns' files export ------------------------------------------------------------ */

typedef struct BusNoun {
        const char *kind;                    /* "capsule": objects below BUS_PATH "/capsule" */
        const char *interface;               /* BUS_NAME ".Capsule" */
        const sd_bus_vtable *const *vtables; /* NULL-terminated; their handlers get what find returned */
        sd_bus_object_find_t find;           /* userdata: BusServer; returns the noun */
        sd_bus_node_enumerator_t enumerate;  /* userdata: BusServer */
} BusNoun;

extern const BusNoun bus_noun_capsule;
extern const BusNoun bus_noun_template;
extern const BusNoun bus_noun_job;

/* Vtables of the Manager interface; userdata: BusServer. */
extern const sd_bus_vtable bus_manager_vtable[]; /* bus-manager.c: properties, Reload */
/* bus-capsules.c: CreateCapsule …, CapsuleNew, CapsuleRemoved */
extern const sd_bus_vtable bus_manager_capsule_vtable[];
/* bus-template.c: ListTemplates … RemoveTemplate */
extern const sd_bus_vtable bus_manager_template_vtable[];
/* bus-key.c: CreateKey … AuthenticateKey, KeyRevoked */
extern const sd_bus_vtable bus_manager_key_vtable[];
extern const sd_bus_vtable bus_manager_job_vtable[]; /* bus-job.c: JobNew, JobRemoved */

/* Parts of ManagerEvents; userdata: BusServer. */
void bus_capsule_new(Capsule *c, void *userdata);
void bus_capsule_changed(Capsule *c, const char *const *properties, void *userdata);
void bus_capsule_removed(Capsule *c, const char *reason, void *userdata);
void bus_capsule_freed(Capsule *c, void *userdata);
void bus_process_exited(Capsule *c, uint32_t pid, const char *tag, int code, const char *reason,
                        void *userdata);
void bus_template_new(Template *t, void *userdata);
void bus_template_changed(Template *t, const char *const *properties, void *userdata);
void bus_template_removed(Template *t, void *userdata);
void bus_job_new(Job *j, void *userdata);
void bus_job_changed(Job *j, const char *const *properties, void *userdata);
void bus_job_log(Job *j, int priority, const char *line, void *userdata);
void bus_job_removed(Job *j, const char *result, const char *message, void *userdata);
void bus_key_revoked(const char *key_id, void *userdata);
void bus_manager_changed(Manager *m, const char *const *properties, void *userdata);
