// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The distributed headers beside root_optim::compiled, which does not have them: whatever they call must be declared by
// their own includes and defined by the library. Without arguments only the types are made; a group needs ranks.
#include <root_optim/distributed.hpp>
#include <root_optim/root.hpp>

#include <cstdio>

#ifndef ROOT_OPTIM_COMPILED
#error "root_optim::compiled does not define ROOT_OPTIM_COMPILED"
#endif

int main(int count, char**) {
  const at::Tensor parameter = at::ones({16, 32}).requires_grad_();
  root_optim::Root optimizer({parameter}, root_optim::RootOptions(1e-3));
  root_optim::ShardedRoot sharded({parameter}, root_optim::ShardedRootOptions(1e-3));
  if (count > 1) {
    const c10::intrusive_ptr<c10d::ProcessGroup> group;
    root_optim::distribute(optimizer, group);
    root_optim::GradientReducer mean({parameter}, group);
    root_optim::OwnerReducer owners(optimizer);
    mean.reduce();
    owners.reduce();
    root_optim::filter_gradients(optimizer);
    root_optim::clip_norm(optimizer, 1);
    sharded.step();
    root_optim::consolidate(optimizer, 0);
    root_optim::save_sharded(optimizer, "checkpoint", 1);
    root_optim::load_sharded(optimizer, "checkpoint");
  }
  std::printf("distributed headers beside the compiled library\n");
}
