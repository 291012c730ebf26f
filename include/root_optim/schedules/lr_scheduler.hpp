// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Learning-rate schedules for any torch::optim::Optimizer: LrSchedule, the factor of each step, and
// LrScheduler, which multiplies the learning rates by it.
#pragma once

#include <torch/optim/schedulers/lr_scheduler.h>

#include <cstdint>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The factor that a learning rate is multiplied by at step t = 0, 1, …; a value type.
///
/// | made by                              | factor after the warm-up                                 |
/// |--------------------------------------|----------------------------------------------------------|
/// | constant()                           | 1                                                        |
/// | linear(total)                        | f + (1 − f)(1 − s)                                       |
/// | cosine(total)                        | f + (1 − f)(1 + cos πs)/2                                |
/// | warmup_stable_decay(total, decay)    | 1, then f + (1 − f)(1 − s) over the last `decay` steps   |
///
/// s grows from 0 to 1 over the steps after the warm-up, with warmup_stable_decay over the last `decay`
/// steps. f is `final_factor`; from step `total` on the factor is f. With `warmup(w)` steps 0 … w − 1 have
/// the factor (t + 1)/w.
class LrSchedule {
 public:
  /// The factor 1 from the end of the warm-up on.
  static LrSchedule constant() { return LrSchedule(Shape::Constant, 0, 0); }
  /// From 1 down to f on a straight line.
  /// @param total number of steps, warm-up included. Range: >= 1.
  static LrSchedule linear(int64_t total) { return LrSchedule(Shape::Linear, total, total); }
  /// Loshchilov & Hutter, arXiv 1608.03983, without restarts.
  /// @param total number of steps, warm-up included. Range: >= 1.
  static LrSchedule cosine(int64_t total) { return LrSchedule(Shape::Cosine, total, total); }
  /// Hu et al., arXiv 2404.06395 (MiniCPM): training can go on from before the decay.
  /// @param total number of steps, warm-up and decay included. Range: >= 1.
  /// @param decay number of steps of the decay. Range: 0 to total.
  static LrSchedule warmup_stable_decay(int64_t total, int64_t decay) {
    return LrSchedule(Shape::Linear, total, decay);
  }

  /// Number of steps of the warm-up. Range: 0 to `total`; with `warmup_stable_decay` 0 to `total` −
  /// `decay`, unless `decay` is `total`; any number with `constant`. Default: 0.
  LrSchedule& warmup(int64_t steps);
  /// f, the factor at the end. Range: 0 to 1. Default: 0; ignored by `constant`.
  LrSchedule& final_factor(double factor);

  /// The factor of step t, counted from 0.
  /// @throws c10::Error unless t >= 0.
  double factor(int64_t t) const;

 private:
  enum class Shape { Constant, Linear, Cosine };

  LrSchedule(Shape shape, int64_t total, int64_t decay);

  Shape shape_;
  int64_t total_, decay_;
  int64_t warmup_ = 0;
  double final_factor_ = 0;
};

/// Where a scheduler stands, as checkpoints keep it.
struct LrSchedulerState {
  int64_t step = 0;              ///< `LrScheduler::current_step`
  std::vector<double> base_lrs;  ///< `LrScheduler::base_lrs`
};

/// Sets the learning rate of every group of an optimizer to its base × the schedule's factor.
///
/// It sets the rates of step 0 as soon as it is made, and is used like LibTorch's own schedulers:
///
///     LrScheduler scheduler(optimizer, LrSchedule::cosine(1000).warmup(50));
///     for (...) { ...; optimizer.step(); scheduler.step(); }
///
/// Bases:  1. those given to the constructor, whatever a checkpoint says;
///         2. for OrthogonalizedOptimizer else the option `base_lr` of the group, if it is known: by an
///            earlier scheduler, or by a checkpoint, which may be loaded before or after;
///         3. else the learning rate that the group has when the scheduler is made.
///         OrthogonalizedOptimizer keeps each in `base_lr`, for the next scheduler and for checkpoints. A
///         second phase of training at another rate gives it, `LrScheduler(optimizer, schedule, {3e-4})`:
///         `lr` and `set_lr` change the rate until the next step of a scheduler, never its base.
///         Other optimizers of LibTorch keep no base, so give it where an earlier scheduler or a checkpoint
///         has changed their rates.
/// Resume: make optimizer and scheduler as at first, and save and load both together (checkpoint.hpp), or the
///         optimizer alone and call `set_step`.
/// Groups: those of the optimizer when it is made; groups added later keep their learning rates.
/// Errors: LibTorch's. The optimizer must outlive the scheduler.
class LrScheduler : public torch::optim::LRScheduler {
 public:
  /// @param base_lrs the bases: one for all groups, or one a group. Range: finite, >= 0. Default: see above.
  /// @throws c10::Error if they are out of range or of another number; or if the rate of a group is 0, no
  /// base of it is known and it has state of earlier steps: an ended schedule would stay at 0 for good.
  LrScheduler(torch::optim::Optimizer& optimizer, LrSchedule schedule,
              std::vector<double> base_lrs = {});

  /// Sets the learning rates of step t; `step()` goes on from there.
  /// @throws c10::Error unless t >= 0.
  void set_step(int64_t t);

  /// t, the number of calls of `step()` since step 0.
  int64_t current_step() const { return step_; }

  /// The base of each group.
  std::vector<double> base_lrs() const;

  /// What `restore` takes back.
  LrSchedulerState state() const { return {step_, base_lrs()}; }

  /// @throws c10::Error unless the step is >= 0 and there is a base, finite and >= 0, for each group.
  void validate(const LrSchedulerState& state) const;

  /// Takes the step and, unless the constructor was given some, the bases; sets the learning rates.
  /// @throws c10::Error as `validate`.
  void restore(const LrSchedulerState& state);

 private:
  std::vector<double> get_lrs() override { return rates_of(++step_); }

  std::vector<double> rates_of(int64_t t);
  void set_bases(std::vector<double> bases);

  torch::optim::Optimizer& optimizer_;
  LrSchedule schedule_;
  bool given_;                 // whether the constructor was given bases
  std::vector<double> bases_;  // of optimizers that keep none, and if given
  int64_t step_ = 0;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/schedules/detail/lr_scheduler_impl.hpp>
#endif
