#include "objects/task_object.h"

#include "base/error.h"

namespace stasis {

namespace {

// Calls `verb` for the rows of one scope. An error that names no task gets the one at hand.
template <class States, class Verb>
void for_each_row(Scope scope, States& states, const std::string& who, Verb verb) {
  const std::vector<TaskObject>& rows = task_objects();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].scope != scope) continue;
    try {
      verb(rows[i], states[i]);
    } catch (Error& e) {
      e.default_object(who);
      throw;
    }
  }
}

}  // namespace

ObjectStates::ObjectStates(Scope scope) : scope_(scope), states_(task_objects().size()) {
  for_each_row(scope_, states_, {}, [](const TaskObject& row, std::any& state) { row.make(state); });
}

void ObjectStates::look(const LookView& view) {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, std::any& state) {
    if (row.look != nullptr) row.look(view, state);
  });
}

void ObjectStates::ask(const LookView& view, SyscallBatch& batch) {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, std::any& state) {
    if (row.ask != nullptr) row.ask(view, batch, state);
  });
}

void ObjectStates::answer(const SyscallBatch& batch, const std::string& who) {
  for_each_row(scope_, states_, who, [&](const TaskObject& row, std::any& state) {
    if (row.answer != nullptr) row.answer(batch, state);
  });
}

bool ObjectStates::asks_again() const {
  bool any = false;
  for_each_row(scope_, states_, {}, [&](const TaskObject& row, const std::any& state) {
    any |= row.asks_again != nullptr && row.asks_again(state);
  });
  return any;
}

void ObjectStates::ask_again(const LookView& view, SyscallBatch& batch) {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, std::any& state) {
    if (row.asks_again != nullptr && row.asks_again(state)) row.ask(view, batch, state);
  });
}

void ObjectStates::answer_again(const SyscallBatch& batch, const std::string& who) {
  for_each_row(scope_, states_, who, [&](const TaskObject& row, std::any& state) {
    if (row.asks_again != nullptr && row.asks_again(state)) row.answer(batch, state);
  });
}

void ObjectStates::losses(std::vector<Loss>& out) const {
  for_each_row(scope_, states_, {}, [&](const TaskObject& row, const std::any& state) {
    if (row.loss == nullptr) return;
    if (auto loss = row.loss(state)) out.push_back(*std::move(loss));
  });
}

void ObjectStates::encode(pb::core_entry& core) const {
  for_each_row(scope_, states_, {}, [&](const TaskObject& row, const std::any& state) {
    if (row.encode != nullptr) row.encode(state, core);
  });
}

void ObjectStates::decode(const pb::core_entry& core, const std::string& who) {
  const bool complete = scope_ == Scope::process ? core.has_tc() : core.has_thread_core();
  if (!complete) {
    const char* what = scope_ == Scope::process ? "the core image holds no state of the process"
                                                : "the core image holds no state of the thread";
    throw Error(Reason::IMAGE_CORRUPT, what).object(who);
  }
  for_each_row(scope_, states_, who, [&](const TaskObject& row, std::any& state) {
    if (row.decode != nullptr) row.decode(core, state);
  });
}

void ObjectStates::encode_extension(pb::extension_task& task) const {
  for_each_row(scope_, states_, {}, [&](const TaskObject& row, const std::any& state) {
    if (row.encode_extension != nullptr) row.encode_extension(state, task);
  });
}

void ObjectStates::decode_extension(const pb::extension_task& task, const std::string& who) {
  for_each_row(scope_, states_, who, [&](const TaskObject& row, std::any& state) {
    if (row.decode_extension != nullptr) row.decode_extension(task, state);
  });
}

void ObjectStates::settle(const SettleView& view, SyscallBatch& batch) const {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, const std::any& state) {
    if (row.settle != nullptr) row.settle(state, view, batch);
  });
}

void ObjectStates::apply(const SettleView& view) const {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, const std::any& state) {
    if (row.apply != nullptr) row.apply(state, view);
  });
}

void ObjectStates::arm(const SettleView& view, SyscallBatch& batch) const {
  for_each_row(scope_, states_, view.who, [&](const TaskObject& row, const std::any& state) {
    if (row.arm != nullptr) row.arm(state, view, batch);
  });
}

void prepare_task_objects(const ProcStatus& root) {
  for (const TaskObject& row : task_objects())
    if (row.prepare != nullptr) row.prepare(root);
  task_object_files();
}

const std::vector<const char*>& task_object_files() {
  static const std::vector<const char*> files = [] {
    std::vector<const char*> out;
    for (const TaskObject& row : task_objects()) out.insert(out.end(), row.proc_files.begin(), row.proc_files.end());
    return out;
  }();
  return files;
}

}  // namespace stasis
