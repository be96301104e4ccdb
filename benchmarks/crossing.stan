// The crossing model with the law two_axis_free, written anew from cbsbayes/models/crossing.py.
data {
  int<lower=1> n_runs;
  int<lower=2> n_thresholds;
  vector[n_runs] n_prompts;
  vector[n_runs] n_rollouts;
  vector[n_thresholds] threshold_logit;
  matrix[n_runs, n_thresholds] log_lower;
  matrix[n_runs, n_thresholds] log_upper;
  matrix[n_runs, n_thresholds] midpoint;
  matrix[n_runs, n_thresholds] gap;
  array[n_runs, n_thresholds] int<lower=0, upper=1> informative;
  array[n_runs, n_thresholds] int<lower=1, upper=n_thresholds> previous;
  real log_steps_scale;
  vector[2] log_batch_scale;  // of B_prompt, B_rollout
  // priors
  real scale_level_sd;
  real scale_trend_sd;
  real scale_deviation;
  real steps_level_sd;
  real growth;
  real growth_sd;
  vector[4] alpha_prior;  // mean, sd, lower, upper
  real sigma_run_prior;
  real sigma_run_sd;
  real sigma_residual_prior;
  real sigma_residual_sd;
  real residual_trend_sd;
  real residual_length_prior;
  real residual_length_sd;
}
transformed data {
  int middle = n_thresholds %/% 2 + 1;
  real middle_prompts = exp(mean(log(n_prompts)));
  real middle_rollouts = exp(mean(log(n_rollouts)));
  real logistic_scale = sqrt(3) / pi();
  vector[n_thresholds - 1] log_climb =
    log(growth) + log(threshold_logit[2:n_thresholds] - threshold_logit[1:(n_thresholds - 1)]);
}
parameters {
  vector[2] level;
  vector[2] trend;
  matrix[2, n_thresholds] deviation;
  real<lower=alpha_prior[3], upper=alpha_prior[4]> alpha;
  real log_S_level;
  vector[n_thresholds - 1] log_growth;
  real<lower=0> sigma_run;
  vector[n_runs] run_effect_z;
  real<lower=0> sigma_residual;
  real residual_trend;
  real<lower=0> residual_length;
}
transformed parameters {
  vector[n_thresholds] B_prompt = exp(log_batch_scale[1] + level[1] + trend[1] * threshold_logit
                                      + scale_deviation * deviation[1]');
  vector[n_thresholds] B_rollout = exp(log_batch_scale[2] + level[2] + trend[2] * threshold_logit
                                       + scale_deviation * deviation[2]');
  vector[n_thresholds] log_S_min;
  {
    vector[n_thresholds] climb = append_row(0, cumulative_sum(exp(log_growth)));
    real noise = B_prompt[middle] + B_rollout[middle] / (middle_rollouts - 1);
    log_S_min = log_S_level - alpha * log1p(noise / middle_prompts) + climb - climb[middle];
  }
  vector[n_thresholds] S_min = exp(log_S_min + log_steps_scale);
}
model {
  level ~ normal(0, scale_level_sd);
  trend ~ normal(0, scale_trend_sd);
  to_vector(deviation) ~ std_normal();
  alpha ~ normal(alpha_prior[1], alpha_prior[2]);
  log_S_level ~ normal(0, steps_level_sd);
  log_growth ~ normal(log_climb, growth_sd);
  sigma_run ~ lognormal(log(sigma_run_prior), sigma_run_sd);
  run_effect_z ~ std_normal();
  sigma_residual ~ lognormal(log(sigma_residual_prior), sigma_residual_sd);
  residual_trend ~ normal(0, residual_trend_sd);
  residual_length ~ lognormal(log(residual_length_prior), residual_length_sd);
  vector[n_thresholds] sd = sigma_residual * exp(residual_trend * threshold_logit);
  for (i in 1:n_runs) {
    vector[n_thresholds] expected = log_S_min + sigma_run * run_effect_z[i]
      + alpha * log1p((B_prompt + B_rollout / (n_rollouts[i] - 1)) / n_prompts[i]);
    for (t in 1:n_thresholds) {
      if (informative[i, t]) {
        int before = previous[i, t];
        real rho = exp(-gap[i, t] / residual_length);
        real center = expected[t] + rho * sd[t] / sd[before]
                                        * (midpoint[i, before] - expected[before]);
        real scale = logistic_scale * sd[t] * sqrt(1 - square(rho));
        real a = (log_lower[i, t] - center) / scale;
        real b = (log_upper[i, t] - center) / scale;
        target += log1m_exp(a - b) - log1p_exp(-b) - log1p_exp(a);
      }
    }
  }
}
